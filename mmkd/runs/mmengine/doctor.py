"""Examines the distillation of a Runner's config: a few real iterations, of which nothing stays."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor

from mmkd.distillation import CHECKED_ITERATIONS, Distillation
from mmkd.distiller import Distiller, FeatureDistiller
from mmkd.doctor.examination import Costs, Examination, TeacherFinding, TermFinding
from mmkd.engine.frozen_teacher import FrozenTeacher
from mmkd.engine.mmengine.distill_hook import DistillHook, iterations_per_epoch
from mmkd.engine.mmengine.models import inputs_and_samples, unwrapped
from mmkd.engine.random_state import preserved_random_state
from mmkd.errors import InputError
from mmkd.features import evaluation_mode
from mmkd.normalizers import BatchNormalizer
from mmkd.runs.mmengine.recipes import distils, records
from mmkd.runs.mmengine.single import running
from mmkd.terms import Schedule, Term

__all__ = ["examine"]

# In which a device and its caches come up, and terms are checked.
_WARM_UP = CHECKED_ITERATIONS
# Where a schedule is looked at.
_PLACES = 1000


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
    if not any(distils(hook) for hook in config.get("custom_hooks") or []):
        raise InputError.at("custom_hooks", f"{config.filename} has no DistillHook to look at")
    # Measures of a DynamicsHook would be timed.
    own = [hook for hook in config.custom_hooks if not records(hook)]
    others = [hook for hook in own if not distils(hook)]
    # First, and forgotten: what it holds on the device is not the other's.
    plain = _looked_at(config, others, iterations).costs()
    return _looked_at(config, own, iterations).examination(plain)


class _Enough(Exception):
    """Ends a training from within."""


def _looked_at(config: Config, hooks: list[Any], iterations: int) -> _Watch:
    """The first iterations of a training with these hooks in the place of its own."""
    watch = _Watch(iterations, starts_from_weights=bool(config.get("load_from")))
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
        with running(config) as runner:
            runner.register_hook(watch, priority="LOWEST")
            with suppress(_Enough):
                runner.train()
    return watch


class _Watch(Hook):
    """Notes what happens in the first iterations, and ends the training then."""

    def __init__(self, iterations: int, starts_from_weights: bool) -> None:
        self._iterations, self._starts_from_weights = iterations, starts_from_weights
        self._seconds: list[float] = []
        self._series: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._shapes: dict[str, tuple[Any, Any]] = {}
        self._samples: dict[str, int] = {}
        self._batch: tuple[Tensor, Any] | None = None
        self._teachers: tuple[TeacherFinding, ...] = ()
        self._student_loss: float | None = None
        self._peak: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Listens to the student and the terms."""
        self._runner = runner
        self._total, self._epoch = runner.max_iters, iterations_per_epoch(runner)
        # However short it is, as much of it is looked at.
        loop: Any = runner.train_loop
        loop._max_epochs = loop._max_iters = sys.maxsize
        model = unwrapped(runner.model)
        self._parameters = sum(p.numel() for p in model.parameters())
        self._device = next(model.parameters()).device
        # Before the hook arms its taps.
        model.register_forward_pre_hook(self._note_batch, with_kwargs=True, prepend=True)
        for term in self._terms:
            self._listen(term, self._distillation.distiller(term))

    @property
    def _distillation(self) -> Distillation:
        hook = DistillHook.among(self._runner.hooks)
        assert hook is not None and hook.distillation is not None
        return hook.distillation

    @property
    def _terms(self) -> list[Term]:
        return [] if DistillHook.among(self._runner.hooks) is None else self._distillation.terms

    def _note_batch(self, module: Any, args: tuple, kwargs: dict) -> None:
        if self._batch is None and kwargs.get("mode") == "loss":
            inputs, samples = inputs_and_samples(args, kwargs)
            self._batch = (inputs.detach().clone(), copy.deepcopy(samples))
            with preserved_random_state(), evaluation_mode(module):
                self._student_loss = _loss_of(module, *self._batch)

    def _listen(self, term: Term, distiller: Distiller) -> None:
        inner: Callable[..., Tensor] = distiller.distance

        def distance(student: Any, teacher: Any, targets: Any = None) -> Tensor:
            self._shapes[term.name] = (_shapes_of(student), _shapes_of(teacher))
            return inner(student, teacher, targets)

        # Not by its call, which the distillation does not make.
        distiller.distance = distance  # type: ignore[method-assign]
        if isinstance(distiller, FeatureDistiller) and isinstance(
            distiller.normalizer, BatchNormalizer
        ):
            distiller.normalizer.register_forward_pre_hook(
                lambda module, args: self._samples.__setitem__(term.name, len(args[0]))
            )

    def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
        """Starts the clock, after the data have come."""
        self._synchronize()
        self._start = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stops it; the last one ends the training."""
        self._synchronize()
        self._seconds.append(time.perf_counter() - self._start)
        if len(self._seconds) == _WARM_UP and self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        if self._terms:
            self._note(outputs or {})
        if len(self._seconds) == _WARM_UP + self._iterations:
            if self._device.type == "cuda":
                self._peak = torch.cuda.max_memory_allocated(self._device)
            raise _Enough

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _note(self, outputs: dict[str, Any]) -> None:
        if len(self._seconds) == 1:
            self._teachers = tuple(self._teacher(name) for name in self._distillation.teachers)
        for term in self._terms:
            for key in ("distill", "distill_weight"):
                if f"{key}_{term.name}" in outputs:
                    value = float(outputs[f"{key}_{term.name}"])
                    self._series[term.name, key].append(value)
            # In the first iteration a balanced weight is 0. Where nothing of the task arrives, as
            # behind a classifier that labels do not teach, there is nothing to share.
            arrived = self._distillation.arrived.get(term.name)
            if arrived is not None and len(self._seconds) > 1 and float(arrived.task) > 0:
                for key in ("share", "cosine"):
                    value = float(getattr(arrived, key))
                    if math.isfinite(value):
                        self._series[term.name, key].append(value)

    def _teacher(self, name: str) -> TeacherFinding:
        teacher: Any = self._distillation.teachers[name]
        network = getattr(teacher, "model", None)
        parameters = self._parameters
        if network is not None:
            parameters = sum(p.numel() for p in network.parameters())
        found = TeacherFinding(name, teacher.introduction, parameters)
        # One that follows the student begins as untrained as that.
        is_trained = isinstance(teacher, FrozenTeacher) and teacher.state is None
        if not is_trained or self._batch is None:
            return found
        inputs, samples = self._batch
        images = teacher.converted(inputs, samples)
        loss = _loss_of(network, images, samples)
        if loss is None:
            return found
        others = {
            "red and blue exchanged": images.flip(1),
            "values of 0 to 255 in the place of 0 to 1": images * 255,
            "values of 0 to 1 in the place of 0 to 255": images / 255,
            "the student's own images": inputs,
        }
        otherwise = {k: _loss_of(network, each, samples) for k, each in others.items()}
        known = {k: value for k, value in otherwise.items() if value is not None}
        return TeacherFinding(name, teacher.introduction, parameters, loss, known)

    def costs(self) -> Costs:
        """Of the steps that were made."""
        return Costs(median(self._seconds[_WARM_UP:]), self._peak)

    def examination(self, plain: Costs) -> Examination:
        """What was found, beside the costs of the student alone."""
        share = self._runner.message_hub.log_scalars.get("train/teacher_time_share")
        return Examination(
            terms=tuple(self._finding(term) for term in self._terms),
            teachers=self._teachers,
            student_parameters=self._parameters,
            student_loss=None if self._starts_from_weights else self._student_loss,
            plain=plain,
            distilled=self.costs(),
            teacher_share=None if share is None else float(share.current()),
            iterations=self._total,
        )

    def _finding(self, term: Term) -> TermFinding:
        distiller = self._distillation.distiller(term)
        student, teacher = self._shapes.get(term.name, ((), ()))
        means = {
            key: fmean(values) if (values := self._series.get((term.name, key))) else None
            for key in ("distill", "distill_weight", "share", "cosine")
        }
        return TermFinding(
            term.name,
            ", ".join(map(str, term.student)),
            ", ".join(map(str, term.teacher)),
            student,
            teacher,
            self._samples.get(term.name),
            means["distill"],
            means["distill_weight"],
            means["share"],
            means["cosine"],
            distiller.balance is not None,
            term.schedule.factor(_WARM_UP + self._iterations - 1, self._epoch) < 1,
            _active(term.schedule, self._total, self._epoch) if distiller.is_on else 0.0,
        )


def _shapes_of(side: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(each.shape) for each in (side if isinstance(side, Sequence) else [side]))


def _active(schedule: Schedule, iterations: int, epoch: int) -> float:
    places = range(0, iterations, max(1, iterations // _PLACES))
    return sum(schedule.factor(place, epoch) > 0 for place in places) / len(places)


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
