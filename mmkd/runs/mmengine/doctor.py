"""Examines the distillation of a Runner's config: a few real iterations, of which nothing stays."""

from __future__ import annotations

import copy
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd.distillation import Distillation
from mmkd.doctor.examination import Costs, Examination, TeacherFinding
from mmkd.doctor.level_map import LevelMap, first_that_fits, level_map
from mmkd.doctor.watch import Watch, forget
from mmkd.engine.mmengine.distill_hook import DistillHook, iterations_per_epoch
from mmkd.engine.mmengine.dynamics_hook import probe_images
from mmkd.engine.mmengine.models import inputs_and_samples, unwrapped
from mmkd.engine.mmengine.spread_images import spread_batch
from mmkd.engine.random_state import preserved_random_state
from mmkd.errors import InputError
from mmkd.features import evaluation_mode
from mmkd.runs.accuracy import cannot_be_told
from mmkd.runs.examined_teacher import examined_teacher, other_classes
from mmkd.runs.library_output import output_to
from mmkd.runs.mmengine.hook_settings import distils, records
from mmkd.runs.mmengine.single import running
from mmkd.runs.mmengine.validation_images import ValidationImages

__all__ = ["examine", "examine_levels"]

# Of images, on which levels are looked at.
_BATCHES, _BATCH = 8, 8


def examine(config: Config, iterations: int = 10) -> Examination:
    """Trains the config's student for a few iterations with its terms, and as many without.

    Args:
        config: Of :func:`mmkd.runs.mmengine.single.config_to_train`; it is not changed. Nothing is
            written but in a temporary folder.
        iterations: Of either training, beside a warm-up of ten.

    Raises:
        InputError: The config has no DistillHook, or cannot be started.
        RuntimeError: A term that cannot be trained, as in a training.
    """
    _check_has_teacher(config)
    # Measures of a DynamicsHook would be timed.
    own = [hook for hook in config.custom_hooks if not records(hook)]
    others = [hook for hook in own if not distils(hook)]
    # First, and forgotten: what it holds on the device is not the other's.
    plain = _looked_at(config, others, iterations).watch.costs()
    forget()
    return _looked_at(config, own, iterations).examination(plain)


def examine_levels(config: Config) -> LevelMap:
    """Compares every level of the student, as its training begins, with every one of the teacher.

    Args:
        config: As for :func:`examine`.

    Raises:
        InputError: As there.
    """
    _check_has_teacher(config)
    config = copy.deepcopy(config)
    [settings] = (hook for hook in config.custom_hooks if distils(hook))

    def look(terms: dict[str, Any]) -> LevelMap:
        settings.terms = terms
        mapper = _Mapper()
        _run(config, [settings], mapper)
        assert mapper.found is not None
        return mapper.found

    return first_that_fits(look)


def _check_has_teacher(config: Config) -> None:
    if not any(distils(hook) for hook in config.get("custom_hooks") or []):
        raise InputError.at("custom_hooks", f"{config.filename} has no DistillHook to look at")


class _Enough(Exception):
    """Ends a training from within."""


def _looked_at(config: Config, hooks: list[Any], iterations: int) -> _Listener:
    """The first iterations of a training with these hooks in the place of its own."""
    # Of a config without a validation, the test's images will do.
    held_out = config.get("val_dataloader") or config.get("test_dataloader")
    listener = _Listener(iterations, bool(config.get("load_from")), copy.deepcopy(held_out))
    _run(config, hooks, listener)
    return listener


def _run(config: Config, hooks: list[Any], listener: Hook) -> None:
    """Until the listener has enough."""
    config = copy.deepcopy(config)
    config.custom_hooks = copy.deepcopy(hooks)
    for split in ("val", "test"):
        config.update({f"{split}_{part}": None for part in ("cfg", "dataloader", "evaluator")})
    config.default_hooks = {**config.get("default_hooks", {}), "checkpoint": None, "logger": None}
    # MMEngine keeps what it has made under a name, and with it the folder of the run before.
    name = f"doctor-{uuid4()}"
    config.update(log_level="ERROR", resume=False, experiment_name=name)
    config.visualizer = dict(type="mmengine.Visualizer", name=name)
    with TemporaryDirectory() as folder:
        config.work_dir = folder
        # A program that reads JSON wants nothing of what libraries print.
        with output_to(Path(folder) / "output.log"), running(config) as runner:
            runner.register_hook(listener, priority="LOWEST")
            with suppress(_Enough):
                runner.train()


class _Mapper(Hook):
    """Looks at the levels, and ends the training before it begins."""

    found: LevelMap | None = None

    def before_train(self, runner: Runner) -> None:
        """See above."""
        hook = DistillHook.among(runner.hooks)
        assert hook is not None and hook.distillation is not None
        model = unwrapped(runner.model)
        batch = spread_batch(runner.train_dataloader, model.data_preprocessor, _BATCHES * _BATCH)
        inputs, samples = batch["inputs"], batch.get("data_samples") or ()
        probes = [
            probe_images(model, inputs[start : start + _BATCH], samples[start : start + _BATCH])
            for start in range(0, len(inputs), _BATCH)
        ]
        self.found = level_map(hook.distillation, probes)
        raise _Enough


class _Listener(Hook):
    """Tells a watch of the first iterations, and ends the training then.

    Args:
        iterations: See :class:`Watch`.
        starts_from_weights: Whether the student is trained already.
        validation: Config of the validation's loader; None without one.
    """

    def __init__(self, iterations: int, starts_from_weights: bool, validation: Any) -> None:
        self.watch = Watch(iterations)
        self._starts_from_weights = starts_from_weights
        self._validation = validation
        self._batch: tuple[Tensor, Any] | None = None
        self._teachers: tuple[TeacherFinding, ...] = ()
        self._student_loss: float | None = None

    def before_train(self, runner: Runner) -> None:
        """Listens to the student and the terms."""
        self._runner = runner
        model = unwrapped(runner.model)
        hook = DistillHook.among(runner.hooks)
        self._distillation = None if hook is None else hook.distillation
        total, epoch = runner.max_iters, iterations_per_epoch(runner)
        self.watch.begin(model, self._distillation, total, epoch)
        # However short it is, as much of it is looked at.
        loop: Any = runner.train_loop
        loop._max_epochs = loop._max_iters = sys.maxsize
        # Before the hook arms its taps.
        model.register_forward_pre_hook(self._note_batch, with_kwargs=True, prepend=True)

    def _note_batch(self, module: Any, args: tuple, kwargs: dict) -> None:
        if self._batch is None and kwargs.get("mode") == "loss":
            inputs, samples = inputs_and_samples(args, kwargs)
            self._batch = (inputs.detach().clone(), copy.deepcopy(samples))
            with preserved_random_state(), evaluation_mode(module):
                self._student_loss = _loss_of(module, *self._batch)

    def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """Starts the clock, after the data have come."""
        self.watch.step_begins()

    def after_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """Stops it; the last one ends the training."""
        is_first = self.watch.is_first
        is_enough = self.watch.step_ends()
        if is_first and self._distillation is not None and self._batch is not None:
            self._examine_teachers(self._distillation, *self._batch)
        if is_enough:
            raise _Enough

    def _examine_teachers(self, distillation: Distillation, inputs: Tensor, samples: Any) -> None:
        model = unwrapped(self._runner.model)
        classes = _classes_of(model)
        validation = ValidationImages.of(self._validation, model.data_preprocessor)
        is_classifier = validation is not None and validation.objects is None

        def loss_of(network: Any, images: Tensor) -> float | None:
            # Labels beyond its classes would end a GPU's context.
            return None if _classes_of(network) < classes else _loss_of(network, images, samples)

        self._teachers = tuple(
            examined_teacher(
                distillation,
                name,
                self.watch.parameters,
                (inputs, samples),
                loss_of,
                None if validation is None else (validation.inputs, validation.samples),
                lambda network, images: _accuracy_of(network, images, classes, validation),
                100 / classes if is_classifier and classes else 0.0,
                lambda network: _unchecked(network, classes, validation),
            )
            for name in distillation.teachers
        )

    def examination(self, plain: Costs) -> Examination:
        """What was found, beside the costs of the student alone."""
        share = self._runner.message_hub.log_scalars.get("train/teacher_time_share")
        return self.watch.examination(
            plain,
            self._teachers,
            None if self._starts_from_weights else self._student_loss,
            None if share is None else float(share.current()),
        )


def _accuracy_of(
    network: Any, images: Tensor, classes: int, validation: ValidationImages | None
) -> float | None:
    """In percent; None without images, or for other classes."""
    if validation is None or _classes_of(network) != classes:
        return None
    return validation.accuracy_of(network, images)


def _unchecked(network: Any, classes: int, validation: ValidationImages | None) -> str:
    theirs = _classes_of(network)
    if theirs and classes and theirs != classes:
        return other_classes(theirs, classes)
    return cannot_be_told() if validation is not None and validation.objects is not None else ""


def _classes_of(network: nn.Module) -> int:
    """As many as one of its heads tells apart; a preprocessor may be told of others."""
    counts = (
        getattr(module, "num_classes", None)
        for name, module in network.named_modules()
        if not name.startswith("data_preprocessor")
    )
    return max((count for count in counts if isinstance(count, int)), default=0)


@torch.no_grad()
def _loss_of(network: Any, images: Tensor, samples: Any) -> float | None:
    """Of a model's own task; None where it has no such, as with other classes."""
    if not isinstance(network, BaseModel) or not samples:
        return None
    try:
        losses = network(images, copy.deepcopy(samples), mode="loss")
        return float(network.parse_losses(losses)[0])
    except Exception:  # Labels beyond its classes, a network without a loss: models differ.
        return None
