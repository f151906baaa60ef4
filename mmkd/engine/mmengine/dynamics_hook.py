"""What goes on inside a distillation, recorded while MMEngine's Runner trains."""

from __future__ import annotations

import csv
import io
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmkd.dynamics import arrived_dynamics, term_dynamics
from mmkd.engine.mmengine.detector_heads import BatchSamples, run_model
from mmkd.engine.mmengine.distill_hook import DistillHook
from mmkd.engine.mmengine.first_images import first_batch
from mmkd.engine.mmengine.models import unwrapped
from mmkd.engine.mmengine.targets import targets_of
from mmkd.errors import InputError
from mmkd.output_files import write_text
from mmkd.registry import HOOKS

__all__ = ["DynamicsHook"]

_FILE = "dynamics.csv"
_COLUMNS = ("step", "images", "term", "measure", "value")


@HOOKS.register_module()
class DynamicsHook(Hook):
    """Records measures of each term of a DistillHook, epoch by epoch or every so many iterations.

    They are those of :func:`mmkd.dynamics.term_dynamics`, on the first images of the training and
    of the validation set, the same each time, with the student in evaluation mode; and share and
    cosine of the term's gradient in the last iteration. Cosines inside and outside boxes are of
    training images only: a test's pipeline may leave boxes in pixels of the image before its
    resizing. The hook only looks: weights, statistics and random numbers are what they would be
    without it.

    They go to the visualizer's backends as ``dynamics/<term>/<measure>``
    (``dynamics/<term>/val_<measure>`` on validation images), with the number of finished epochs or
    iterations as their step, and into ``dynamics.csv`` in the work dir, a row a value: step, images
    (train or val), term, measure, value. A resumed training goes on with that file.

    Args:
        images: How many.
        interval: Epochs, or iterations, from one record to the next.
        by_epoch: Which of them; as the training's own loop counts.

    Raises:
        ValueError: A number below 1, on construction; no DistillHook, or a loop that counts the
            other, before training.
    """

    # Behind DistillHook.
    priority = "BELOW_NORMAL"

    def __init__(self, images: int = 16, interval: int = 1, by_epoch: bool = True) -> None:
        for name, value in (("images", images), ("interval", interval)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError.at(
                    f"DynamicsHook {name}", f"expected a number from 1 on, got {value!r}"
                )
        self.images, self.interval, self.by_epoch = images, interval, by_epoch
        self._batches: dict[str, dict[str, Any]] = {}
        self._rows: list[tuple[str, ...]] = []

    def before_train(self, runner: Runner) -> None:
        """Reads the images, and what a run that is resumed has recorded."""
        if DistillHook.among(runner.hooks) is None:
            raise InputError.at(
                "DynamicsHook", "custom_hooks holds no DistillHook whose terms it could look at"
            )
        if isinstance(runner.train_loop, EpochBasedTrainLoop) != self.by_epoch:
            raise InputError.at(
                "DynamicsHook by_epoch",
                f"train_cfg is a {type(runner.train_loop).__name__}: give by_epoch="
                f"{not self.by_epoch}, and an interval in what it counts",
            )
        model = unwrapped(runner.model)
        loaders = {"train": runner.train_dataloader}
        if runner.val_loop is not None:
            loaders["val"] = runner.val_dataloader
        self._batches = {
            name: first_batch(loader, model.data_preprocessor, self.images)
            for name, loader in loaders.items()
        }
        done = runner.epoch if self.by_epoch else runner.iter
        self._rows = _rows_until(Path(runner.work_dir) / _FILE, done)

    def after_train_epoch(self, runner: Runner) -> None:
        """Records, where epochs count."""
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._record(runner, runner.epoch + 1)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Records, where iterations count."""
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._record(runner, runner.iter + 1)

    def _record(self, runner: Runner, step: int) -> None:
        """Measures, logs and writes."""
        if runner.rank:
            return
        found = self._measured(runner)
        runner.visualizer.add_scalars(
            {
                f"dynamics/{term}/{'val_' if images == 'val' else ''}{name}": value
                for (images, term, name), value in found.items()
            },
            step=step,
        )
        self._rows += [(str(step), *key, repr(v)) for key, v in found.items()]
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([_COLUMNS, *self._rows])
        write_text(Path(runner.work_dir) / _FILE, stream.getvalue())

    def _measured(self, runner: Runner) -> dict[tuple[str, str, str], float]:
        hook = DistillHook.among(runner.hooks)
        assert hook is not None and hook.distillation is not None
        distillation = hook.distillation
        model = unwrapped(runner.model)
        found: dict[tuple[str, str, str], float] = {}
        for term in distillation.terms:
            for name, value in arrived_dynamics(distillation, term.name).items():
                found["train", term.name, name] = value
        for images, batch in self._batches.items():
            inputs, samples = batch["inputs"], BatchSamples(batch.get("data_samples") or ())
            run = partial(run_model, model, inputs, samples)
            features = distillation.features(run, inputs, samples)
            targets = targets_of(inputs, samples)
            for term in distillation.terms:
                own = term_dynamics(distillation.distiller(term), *features[term.name], targets)
                for name, value in own.items():
                    if images == "train" or not name.startswith("cosine_"):
                        found[images, term.name, name] = value
        return found


def _rows_until(file: Path, done: int) -> list[tuple[str, ...]]:
    """What a file tells of the steps that are over; nothing of another run's, which begins."""
    if not done or not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        rows = [tuple(row) for row in csv.reader(stream)]
    return [row for row in rows[1:] if row[0].isdigit() and int(row[0]) <= done]
