"""Logs how the student's classifier aligns with the teacher's, in MMEngine's trainer."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn

from mmkd.analysis import classifier_distance, pearson_correlation
from mmkd.engine.mmengine.addresses import read_weights_of
from mmkd.engine.mmengine.models import unwrapped
from mmkd.errors import InputError, TermError, naming
from mmkd.features import find_module
from mmkd.registry import HOOKS

__all__ = ["ClassifierAlignmentHook"]

CHECKPOINT_KEY = "mmkd_alignment"


@HOOKS.register_module()
class ClassifierAlignmentHook(Hook):
    """Logs ``mu = ||W_t - W_s||`` after each epoch, and its correlation with the objective.

    The measure of Dua, *Insights into the mechanism behind reusing teacher's classifier in
    knowledge distillation*, section 2. The hook only looks: it changes no weight, gradient or
    random number, with or without distillation. Outside training it does nothing and reads no
    file.

    Each epoch writes one entry to the visualizer's backends (a line of ``scalars.json``, points in
    TensorBoard), whose step is the number of finished epochs, as validation's:

    - ``classifier_distance``: mu, of the weights that are trained (not of a moving average).
    - ``mean_objective``: mean over the epoch's iterations of the sum of all losses, that which is
      back-propagated; with distillation the paper's combined loss. With several processes, the
      first one's own.
    - ``classifier_correlation``: Pearson's, of the two over the epochs from ``begin`` on; left
      out while it is undefined (see :func:`mmkd.analysis.pearson_correlation`).

    The series rides in the checkpoint under the key ``mmkd_alignment``, a dict of the lists
    ``epoch`` (from 0), ``distance`` and ``objective``; a resumed training goes on with it.

    Args:
        checkpoint: The teacher's weights (``.pth`` or ``.safetensors``), of which one is read.
        student: Path of the student's linear classifier.
        teacher: Path of the teacher's; its weight is ``<teacher>.weight``, of the same shape.
        begin: Epochs that the correlation leaves out; the paper's warm-up is 120.
        allow_pickle: Also execute what is pickled in the checkpoint. Only for files you trust.

    Raises:
        ValueError: ``begin`` below 0, on construction; a classifier that is missing, not linear
            or of another shape, a second such hook, or a training that counts iterations, before
            training; a checkpoint without the series, on resume.
        FileNotFoundError: No such checkpoint, before training.
        RuntimeError: A model that is trained without its ``forward(mode='loss')``.
    """

    # Behind DistillHook, before CheckpointHook.
    priority = "BELOW_NORMAL"

    def __init__(
        self,
        checkpoint: str | Path,
        student: str = "head.fc",
        teacher: str = "head.fc",
        begin: int = 0,
        allow_pickle: bool = False,
    ) -> None:
        if not isinstance(begin, int) or begin < 0:
            raise InputError.at(
                "ClassifierAlignmentHook begin",
                f"expected a number of epochs, 0 or more, got {begin!r}",
            )
        self._checkpoint, self._allow_pickle = checkpoint, allow_pickle
        self._student_path, self._teacher_path = student, teacher
        self._begin = begin
        self._weight: Tensor | None = None
        self._objectives: list[Tensor] = []
        self._series: dict[str, list] = dict(epoch=[], distance=[], objective=[])

    def before_run(self, runner: Runner) -> None:
        """Reads the teacher's classifier and checks that it fits, where a training begins."""
        if not isinstance(runner.optim_wrapper, OptimWrapper) or self._weight is not None:
            return
        if sum(isinstance(hook, ClassifierAlignmentHook) for hook in runner.hooks) > 1:
            raise InputError.at(
                "ClassifierAlignmentHook", "custom_hooks holds several, expected one"
            )
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise InputError.at(
                "ClassifierAlignmentHook",
                f"train_cfg is a {type(runner.train_loop).__name__}, but "
                "the hook compares epochs: use EpochBasedTrainLoop (by_epoch=True)",
            )
        with naming("ClassifierAlignmentHook student"):
            student = self._student_weight(runner)
        with naming("ClassifierAlignmentHook checkpoint"):
            found = read_weights_of(str(self._checkpoint), allow_pickle=self._allow_pickle)
        with naming("ClassifierAlignmentHook teacher"):
            teacher = _weight_of(found.weights, self._teacher_path, found.file)
            _check_shapes(student, teacher)
        # A copy: the file's other weights are not kept.
        self._weight = teacher.detach().clone()

    def before_train(self, runner: Runner) -> None:
        """Attaches to the student, behind distillation, which enlarges its dict of losses."""
        self._handle = unwrapped(runner.model).register_forward_hook(
            self._after_forward, with_kwargs=True
        )

    def after_train(self, runner: Runner) -> None:
        """Leaves the student as it was found."""
        self._handle.remove()

    def before_train_epoch(self, runner: Runner) -> None:
        """Begins the epoch's mean."""
        self._objectives = []

    def _after_forward(self, module: BaseModel, args: tuple, kwargs: dict, output: Any) -> None:
        # The scalar 'loss' that a model logs is not it: where the dict of losses has a key of this
        # name, as MMPretrain's, it holds that entry alone.
        if module.training and kwargs.get("mode") == "loss":
            with torch.no_grad():
                self._objectives.append(module.parse_losses(output)[0].detach())

    def after_train_epoch(self, runner: Runner) -> None:
        """Measures and logs; runs before the checkpoint is saved."""
        assert self._weight is not None
        if not self._objectives:
            raise TermError.at(
                "ClassifierAlignmentHook",
                "the model was trained without a call of its "
                "forward(mode='loss'), which is where the hook sees the losses",
            )
        series = self._series
        series["epoch"].append(runner.epoch)
        series["distance"].append(classifier_distance(self._student_weight(runner), self._weight))
        series["objective"].append(fmean(torch.stack(self._objectives).tolist()))
        scalars = dict(
            classifier_distance=series["distance"][-1], mean_objective=series["objective"][-1]
        )
        points = [i for i, epoch in enumerate(series["epoch"]) if epoch >= self._begin]
        correlation = pearson_correlation(
            [series["distance"][i] for i in points], [series["objective"][i] for i in points]
        )
        # JSON knows no nan.
        if not math.isnan(correlation):
            scalars["classifier_correlation"] = correlation
        text = "  ".join(f"{name}: {value:.4f}" for name, value in scalars.items())
        runner.logger.info(f"Epoch(alignment) [{runner.epoch + 1}]  {text}")
        # Not through the message hub: there every iteration of the next epoch would log the values
        # again, and nothing would log the last epoch's.
        runner.visualizer.add_scalars(scalars, step=runner.epoch + 1)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds the series."""
        if self._weight is not None:
            checkpoint[CHECKPOINT_KEY] = {key: list(v) for key, v in self._series.items()}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the series back where a training is resumed."""
        if self._weight is None or not runner._resume:
            return
        done = checkpoint["meta"]["epoch"]
        if CHECKPOINT_KEY in checkpoint:
            self._series = {key: list(v) for key, v in checkpoint[CHECKPOINT_KEY].items()}
        elif done > self._begin:
            raise InputError.at(
                "ClassifierAlignmentHook",
                f"the checkpoint to resume from, of epoch {done}, was "
                f"written without the hook, so the epochs from begin={self._begin} on are missing: "
                f"set begin={done}, or remove the hook",
            )

    def _student_weight(self, runner: Runner) -> Tensor:
        module = find_module(unwrapped(runner.model), self._student_path)
        return _linear_weight(module, self._student_path)


def _linear_weight(module: nn.Module, path: str) -> Tensor:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        found = f"of shape {list(weight.shape)}" if isinstance(weight, Tensor) else "missing"
        raise ValueError(
            f"{path!r} is a {type(module).__name__} whose weight is {found}, expected a linear "
            "classifier's [classes, channels]: name the classifier's module"
        )
    return weight


def _weight_of(weights: dict[str, Tensor], path: str, file: Path) -> Tensor:
    key = f"{path}.weight"
    if key not in weights:
        matrices = [name for name, weight in weights.items() if weight.ndim == 2]
        close = difflib.get_close_matches(key, matrices, n=3, cutoff=0.3)
        hint = f"; of its weights of rank 2, {', '.join(close)} come close" if close else ""
        raise ValueError(f"{file} holds no {key!r}{hint}: name the classifier's module")
    return weights[key]


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if teacher.ndim != 2:
        raise ValueError(
            f"the weight has shape {list(teacher.shape)}, expected a linear classifier's "
            "[classes, channels]: name the classifier's module"
        )
    for axis, (name, advice) in enumerate(
        (
            ("classes", "use a teacher that was trained on the student's classes"),
            ("channels", "use a student of the teacher's penultimate width"),
        )
    ):
        if student.shape[axis] != teacher.shape[axis]:
            raise ValueError(
                f"the classifier has {teacher.shape[axis]} {name}, expected the student's "
                f"{student.shape[axis]}, for the two weights are subtracted: {advice}"
            )
