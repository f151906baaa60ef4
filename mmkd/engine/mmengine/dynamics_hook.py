"""What goes on inside a distillation, recorded while MMEngine's Runner trains."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor
from torch.utils.data import DataLoader

from mmkd.dynamics import DynamicsSettings, ProbeImages, check_blocks, recorded
from mmkd.dynamics_file import DYNAMICS_FILE, DynamicsFile
from mmkd.engine.evenly import evenly
from mmkd.engine.mmengine.annotated_boxes import boxes_in_batch
from mmkd.engine.mmengine.detector_heads import BatchSamples, run_model
from mmkd.engine.mmengine.distill_hook import DistillHook
from mmkd.engine.mmengine.models import unwrapped
from mmkd.engine.mmengine.spread_images import spread_batch
from mmkd.engine.mmengine.targets import targets_of
from mmkd.errors import InputError
from mmkd.registry import HOOKS
from mmkd.targets import Boxes

__all__ = ["DynamicsHook", "probe_images"]


@HOOKS.register_module()
class DynamicsHook(Hook):
    """Records measures of each term of a DistillHook every so many epochs or iterations, and at the
    end.

    They are those of :func:`mmkd.dynamics.term_dynamics`, on images from all over the training and
    the validation set, the same each time, with the student in evaluation mode; and share and
    cosine of the term's gradient in the last iteration. Boxes of validation images are those of the
    data set, where the pipeline tells how it has resized them. The hook only looks: weights,
    statistics and random numbers are what they would be without it.

    They go to the visualizer's backends as ``dynamics/<term>/<measure>``
    (``dynamics/<term>/val_<measure>`` on validation images), with the number of finished epochs or
    iterations as their step, and into ``dynamics.csv`` in the work dir, a row a value: step, images
    (train or val), term, measure, value. A resumed training goes on with that file. The matrices of
    the last record lie beside it, in ``dynamics_matrices.npz``.

    Args:
        images: How many.
        interval: Epochs, or iterations, from one record to the next; None: as few as hold 100
            times as many images as are looked at, so that it takes less than 2% of the time
            (``benchmarks/dynamics_cost.py``); every epoch of 1,600 images or more.
        by_epoch: Which of them; a loop of iterations has no epochs.
        blocks: Paths of the student's modules, such as the layers of a vision transformer
            (``'backbone.layers.0'``), up to which its equivariance to translation is recorded, as
            ``dynamics/<path>/equivariance``.

    Raises:
        ValueError: A number below 1, on construction; no DistillHook, epochs of a loop that counts
            none, or a block that does not fit, before training.
    """

    # Behind DistillHook.
    priority = "BELOW_NORMAL"

    def __init__(
        self,
        images: int = 16,
        interval: int | None = None,
        by_epoch: bool = True,
        blocks: Sequence[str] = (),
    ) -> None:
        self.settings = DynamicsSettings.parse(
            "DynamicsHook ", dict(images=images, interval=interval, blocks=blocks)
        )
        self.by_epoch = by_epoch

    def before_train(self, runner: Runner) -> None:
        """Reads the images, and what a run that is resumed has recorded."""
        hook = DistillHook.among(runner.hooks)
        if hook is None:
            raise InputError.at(
                "DynamicsHook", "custom_hooks holds no DistillHook whose terms it could look at"
            )
        if self.by_epoch and not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise InputError.at(
                "DynamicsHook by_epoch",
                f"train_cfg is a {type(runner.train_loop).__name__}: give by_epoch=False, and an "
                "interval in iterations",
            )
        assert hook.distillation is not None
        self._distillation = hook.distillation
        loader = runner.train_dataloader
        images = len(loader.dataset)
        # A loader of batches of its own does not tell their size.
        each = images if self.by_epoch else max(1, images // len(loader))
        self._every = self.settings.every(each, images)
        self._recorded = 0
        if runner.rank:  # Others do not record.
            return
        what = "epochs" if self.by_epoch else "iterations"
        runner.logger.info(f"DynamicsHook: records every {self._every} {what}, and at the end")
        loaders = {"train": loader}
        if runner.val_loop is not None:
            loaders["val"] = runner.val_dataloader
        self.probes = {
            name: _probe(unwrapped(runner.model), loader, self.settings.images, name == "train")
            for name, loader in loaders.items()
        }
        blocks = self.settings.blocks
        check_blocks("DynamicsHook", self._distillation, self.probes.values(), blocks)
        done = self._recorded = runner.epoch if self.by_epoch else runner.iter
        self._file = DynamicsFile(Path(runner.work_dir) / DYNAMICS_FILE, done)

    def after_train_epoch(self, runner: Runner) -> None:
        """Records, where epochs count."""
        if self.by_epoch:
            self._record_if_due(runner, runner.epoch + 1, runner.max_epochs)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Records, where iterations count."""
        if not self.by_epoch:
            self._record_if_due(runner, runner.iter + 1, runner.max_iters)

    def after_train(self, runner: Runner) -> None:
        """Records of a training that has stopped early, where its end is not there yet."""
        step = runner.epoch if self.by_epoch else runner.iter
        if step > self._recorded:
            self._record_if_due(runner, step, step)

    def _record_if_due(self, runner: Runner, step: int, last: int) -> None:
        if runner.rank or (step % self._every and step != last):
            return
        self._recorded = step
        found = recorded(self._distillation, self.probes, self.settings.blocks)
        rows = self._file.add(step, found)
        runner.visualizer.add_scalars({row.name: row.value for row in rows}, step=step)


def _probe(model: Any, loader: DataLoader, count: int, is_trained_on: bool) -> ProbeImages:
    batch = spread_batch(loader, model.data_preprocessor, count)
    inputs, samples = batch["inputs"], batch.get("data_samples") or ()
    probe = probe_images(model, inputs, samples)
    if is_trained_on:
        return probe
    # A test's pipeline may leave boxes in pixels of the image before its resizing.
    boxes = _annotated(loader.dataset, count, samples)
    return probe._replace(targets=probe.targets.with_boxes(boxes))


def _annotated(dataset: Any, count: int, samples: Sequence[Any]) -> list[Boxes] | None:
    """None of a data set without boxes, or where nothing says how they were resized."""
    try:
        infos = [dataset.get_data_info(index) for index in evenly(count, len(dataset))]
        return [
            boxes_in_batch(info["instances"], sample.metainfo)
            for info, sample in zip(infos, samples, strict=True)
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def probe_images(model: Any, inputs: Tensor, samples: Sequence[Any]) -> ProbeImages:
    """A batch to look at.

    Args:
        model: The student.
        inputs: ``[N, 3, H, W]``, preprocessed.
        samples: Their data samples.
    """
    context = BatchSamples(samples)
    return ProbeImages(
        inputs,
        targets_of(inputs, context),
        lambda images: run_model(model, images, context),
        context,
    )
