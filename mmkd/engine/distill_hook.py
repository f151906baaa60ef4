"""Distillation in MMEngine's trainer: MMDetection, MMPretrain and their relatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn

from mmkd.distiller import FeatureDistiller
from mmkd.engine.mm_teacher import MMTeacher, naming, parse_teachers
from mmkd.engine.optimizer import add_distillers, synchronize
from mmkd.engine.random_state import preserved_random_state, random_state, set_random_state
from mmkd.engine.step_clock import StepClock
from mmkd.features import FeatureTaps, channels_of, find_module, select
from mmkd.normalizers import BatchNormalizer
from mmkd.registry import HOOKS
from mmkd.terms import Term, parse_terms

__all__ = ["DistillHook"]

CHECKPOINT_KEY = "mmkd"
# Iterations of a term in which every value is looked at; later ones cost no synchronisation.
CHECKED_ITERATIONS = 10


@HOOKS.register_module()
class DistillHook(Hook):
    """Adds distillation terms to the losses of the model that a Runner trains.

    Outside training it does nothing and needs no teacher. The student's ``state_dict`` keeps
    its keys; the projectors ride in the checkpoint under the key ``mmkd``.

    Args:
        teacher: ``dict(config=..., checkpoint=...)``: a config file (a path or
            ``'mmdet::...'``) and its weights (``.pth`` or ``.safetensors``). Instead of
            ``config``, ``model=dict(type=...)`` names a registered module.
            ``allow_pickle=True`` lets the file execute code. For several teachers, a dict of
            such dicts by name.
        terms: Name to settings, each of which may be left out: ``student`` and ``teacher``
            (module paths, ``'backbone'``), ``level`` (which of several outputs, the last; a
            list makes one term each) or ``student_level`` and ``teacher_level``, ``source``
            (which of several teachers), ``projector``, ``normalizer``, ``loss``, ``view``,
            ``weight``, ``student_channels``, ``teacher_channels`` (see
            :class:`mmkd.FeatureDistiller`; channels are measured where left out) and
            ``schedule`` (see :class:`mmkd.terms.Schedule`). None: one default term a teacher.
        probe_size: Side in pixels of the blank image on which taps, channels and weights are
            checked before training.

    Logged: ``loss_distill_<term>`` (weighted, part of the objective), ``distill_<term>``
    (unweighted), ``distill_ratio`` (distillation to task loss), ``teacher_time_share`` (of the
    step's time).

    Raises:
        ValueError, TypeError: An unknown key or value, on construction; a teacher, tap or
            feature that does not fit, before training.
        FileNotFoundError: No such checkpoint, before training.
        RuntimeError: A term that does not fire, has no gradient, stays at 0 or is not finite,
            in the first iterations.
    """

    priority = "NORMAL"

    def __init__(
        self,
        teacher: Mapping[str, Any],
        terms: Mapping[str, Mapping[str, Any]] | None = None,
        probe_size: int = 128,
    ) -> None:
        self._settings = parse_teachers(teacher)
        with naming("terms"):
            self.terms = parse_terms(terms, list(self._settings))
            _check_names([term.name for term in self.terms])
        for name in self._settings:
            if not any(term.source == name for term in self.terms):
                raise ValueError(f"DistillHook teacher.{name}: no term has source={name!r}")
        self._probe_size = probe_size
        self.teachers: dict[str, MMTeacher] = {}
        self.distillers: nn.ModuleDict | None = None
        self._resumed: dict[str, Any] | None = None
        self._handles: list[Any] = []
        self._factors: dict[str, float] = {}
        self._fired = False
        self._validated = False
        self._checked: Counter[str] = Counter()
        self._nonzero: set[str] = set()

    # Before training ----------------------------------------------------------------------

    def before_run(self, runner: Runner) -> None:
        """Builds teachers and projectors, and checks them, where a training begins."""
        is_training = isinstance(runner.optim_wrapper, OptimWrapper)
        if not is_training or self.distillers is not None:
            return
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise ValueError("DistillHook: optim_wrapper holds several optimizers, expected one")
        if sum(isinstance(hook, DistillHook) for hook in runner.hooks) > 1:
            raise ValueError("DistillHook: custom_hooks holds several, expected one with all terms")
        self._student = runner.model.module if is_model_wrapper(runner.model) else runner.model
        device = next(self._student.parameters()).device
        with preserved_random_state():
            for name, settings in self._settings.items():
                self.teachers[name] = MMTeacher(
                    settings,
                    {f"{t.key}.teacher": t.teacher for t in self.terms if t.source == name},
                    self._student.data_preprocessor,
                    device,
                    self._probe_size,
                )
            self.distillers = self._build_distillers(device, runner.seed or 0)
        distillers = [self._distiller(term) for term in self.terms]
        add_distillers(runner, distillers)
        if runner.world_size > 1:
            synchronize(runner, distillers)
        self._clock = StepClock(device)

    def _build_distillers(self, device: torch.device, seed: int) -> nn.ModuleDict:
        student = self._probe_student(device)
        distillers = {}
        for index, term in enumerate(self.terms):
            with naming(f"{term.key}.student"):
                found = select(student[term.student], term.student_level)
            with naming(f"{term.key}.teacher"):
                target = select(self.teachers[term.source].probed[term.teacher], term.teacher_level)
            with naming(term.key):
                channels = dict(
                    student_channels=channels_of(found), teacher_channels=channels_of(target)
                )
                distillers[term.name] = FeatureDistiller(
                    **{**channels, **term.parts}, seed=seed + index
                )
        return nn.ModuleDict(distillers).to(device)

    def _probe_student(self, device: torch.device) -> dict[str, Any]:
        """The student's tapped outputs for a blank image; its mode is put back exactly."""
        for term in self.terms:
            with naming(f"{term.key}.student"):
                find_module(self._student, term.student)
        modes = {module: module.training for module in self._student.modules()}
        paths = [term.student for term in self.terms]
        taps = FeatureTaps(self._student, paths, stop_when_complete=True)
        blank = torch.zeros(1, 3, self._probe_size, self._probe_size, device=device)
        try:
            self._student.eval()
            with naming("student"), torch.no_grad(), taps.recording():
                self._student(blank, None, mode="tensor")
            with naming("student"):
                return taps.take()
        finally:
            taps.detach()
            for module, mode in modes.items():
                module.training = mode

    def before_train(self, runner: Runner) -> None:
        """Attaches to the student: by now it has been copied and wrapped by whoever does."""
        self._taps = FeatureTaps(self._student, [term.student for term in self.terms])
        self._handles = [
            self._student.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            self._student.register_forward_hook(self._after_forward, with_kwargs=True),
        ]
        self._epoch_length = _iterations_per_epoch(runner)
        for term in self.terms:
            distiller = self._distiller(term)
            if distiller.weight == 0:
                runner.logger.warning(f"DistillHook: {term.key}.weight is 0: it never runs")
            if distiller.view == "global" and isinstance(distiller.normalizer, BatchNormalizer):
                _check_last_batch(runner, term)

    def after_train(self, runner: Runner) -> None:
        """Leaves the student as it was found."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._taps.detach()

    # Each iteration -----------------------------------------------------------------------

    def _distiller(self, term: Term) -> FeatureDistiller:
        assert self.distillers is not None
        return self.distillers[term.name]  # type: ignore[return-value]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Decides which terms are on."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._continue_random_state(runner, runner.iter)
        self._validated = False
        self._clock.start_step()
        self._fired = False
        self._factors = {
            term.name: factor
            for term in self.terms
            if self._distiller(term).weight > 0
            and (factor := term.schedule.factor(runner.iter, self._epoch_length)) > 0
        }

    def _before_forward(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self._factors and module.training and kwargs.get("mode") == "loss":
            self._taps.arm()
            self._fired = True

    def _after_forward(
        self, module: nn.Module, args: tuple, kwargs: dict, output: Any
    ) -> dict[str, Tensor] | None:
        if not self._fired or not module.training or kwargs.get("mode") != "loss":
            return None
        with naming("student"):
            student = self._taps.take()
        terms = [term for term in self.terms if term.name in self._factors]
        inputs = kwargs["inputs"] if "inputs" in kwargs else args[0]
        samples = kwargs.get("data_samples", args[1] if len(args) > 1 else None)
        self._clock.start_teacher()
        teacher = {
            source: self.teachers[source].features(inputs, samples)
            for source in dict.fromkeys(term.source for term in terms)
        }
        self._clock.stop_teacher()
        losses: dict[str, Tensor] = dict(output)
        task = _total(losses)
        for term in terms:
            with naming(term.key):
                distance = self._distance(term, student, teacher[term.source])
            losses[f"distill_{term.name}"] = distance.detach()
            factor = self._factors[term.name] * self._distiller(term).weight
            losses[f"loss_distill_{term.name}"] = factor * distance
        losses["distill_ratio"] = (_total(losses).detach() - task) / task.clamp_min(1e-12)
        return losses

    def _distance(self, term: Term, student: dict[str, Any], teacher: dict[str, Any]) -> Tensor:
        ours = select(student[term.student], term.student_level)
        theirs = select(teacher[term.teacher], term.teacher_level)
        if self._checked[term.name] == CHECKED_ITERATIONS:
            return self._distiller(term).distance(ours, theirs)
        self._checked[term.name] += 1
        if not ours.requires_grad:
            raise RuntimeError(
                f"the student's feature {term.student!r} has no gradient, so nothing would be "
                "learned: is that module frozen (frozen_stages, requires_grad)?"
            )
        if not torch.isfinite(theirs).all():
            raise RuntimeError(
                f"the teacher's feature {term.teacher!r} holds NaN or infinite values: check "
                "its checkpoint, and its precision if this is mixed-precision training"
            )
        distance = self._distiller(term).distance(ours, theirs)
        if not torch.isfinite(distance):
            raise RuntimeError(f"the distance is {distance.item()}: check the student's feature")
        if distance != 0:
            self._nonzero.add(term.name)
        elif self._checked[term.name] == CHECKED_ITERATIONS and term.name not in self._nonzero:
            raise RuntimeError(
                f"the distance stayed at 0 for {CHECKED_ITERATIONS} iterations: do student and "
                "teacher share the tapped weights?"
            )
        return distance

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Logs the teacher's share of the time; checks that every term has fired."""
        self._log_what_is_off(runner)
        if not self._factors:
            return
        if not self._fired:
            raise RuntimeError(
                f"DistillHook: the terms {list(self._factors)} did not fire: "
                f"{type(self._student).__name__} was trained without a call of its "
                "forward(mode='loss'), which is where distillation joins"
            )
        self._clock.stop_step()
        if self._clock.share is not None:
            runner.message_hub.update_scalar("train/teacher_time_share", self._clock.share)

    def _log_what_is_off(self, runner: Runner) -> None:
        """MMEngine goes on logging the last value of what is no longer reported."""
        off = [term.name for term in self.terms if term.name not in self._factors]
        keys = [f"{prefix}{name}" for name in off for prefix in ("loss_distill_", "distill_")]
        if not self._factors:
            keys += ["distill_ratio", "teacher_time_share"]
        for key in keys:
            runner.message_hub.update_scalar(f"train/{key}", 0.0)

    # Checkpoints --------------------------------------------------------------------------

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds projectors and random states under a key of their own."""
        if self.distillers is None:
            return
        checkpoint[CHECKPOINT_KEY] = dict(
            distillers={k: v.cpu() for k, v in self.distillers.state_dict().items()},
            random_state=random_state(),
            validated=self._validated,
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes them back where a training is resumed."""
        if self.distillers is None or not runner._resume:
            return
        if CHECKPOINT_KEY not in checkpoint:
            raise ValueError(
                "DistillHook: the checkpoint to resume from was written without distillation, "
                "so it holds no projectors: start from its weights with load_from instead of "
                "resume, or remove the hook"
            )
        state = checkpoint[CHECKPOINT_KEY]
        with naming("terms (do they match the run that is resumed?)"):
            self.distillers.load_state_dict(state["distillers"])
        # The checkpoint is the first process's own; the others draw from their seeds.
        if runner.rank == 0:
            self._resumed = state

    def before_val_epoch(self, runner: Runner) -> None:
        """Notes that what is saved next has the validation's draws behind it."""
        self._validated = True

    def before_train_epoch(self, runner: Runner) -> None:
        """Continues the random states of the run that was stopped."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._continue_random_state(runner, runner.epoch)

    def _continue_random_state(self, runner: Runner, done: int) -> None:
        if self._resumed is None:
            return
        state, self._resumed = self._resumed, None
        set_random_state(state["random_state"])
        validates = (
            runner.val_loop is not None
            and done >= runner.val_begin
            and done % runner.val_interval == 0
        )
        if validates and not state["validated"]:
            # The validation that followed the checkpoint has drawn its data loader's seed.
            torch.empty((), dtype=torch.int64).random_()


def _iterations_per_epoch(runner: Runner) -> int:
    loader = runner.train_dataloader
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    # Every process's infinite sampler counts the whole data set.
    processes = runner.world_size if isinstance(sampler, InfiniteSampler) else 1
    return max(1, round(len(loader) / processes))


def _check_last_batch(runner: Runner, term: Term) -> None:
    loader = runner.train_dataloader
    if runner.world_size > 1 or loader.drop_last or (loader.batch_size or 1) < 2:
        return
    if isinstance(loader.sampler, DefaultSampler) and len(loader.sampler) % loader.batch_size == 1:
        raise ValueError(
            f"DistillHook {term.key}.view: 'global' takes one sample an image, and the last batch "
            f"of an epoch holds 1 of {len(loader.sampler)} images, too few for BatchNormalizer: "
            "set train_dataloader.drop_last=True, another batch_size, or view='dense'"
        )


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if "loss" in name:
            raise ValueError(
                f"{name!r} contains 'loss', so what is only logged under it would enter the "
                "objective (MMEngine adds up every such key): choose another name"
            )
        if not name or "." in name or hasattr(nn.ModuleDict(), name):
            raise ValueError(f"{name!r} cannot name a module of PyTorch's: choose another name")


def _total(losses: dict[str, Any]) -> Tensor:
    """The objective, as the model's ``parse_losses`` sums it, without gradient."""
    values = [value for key, value in losses.items() if "loss" in key]
    flat = [each for v in values for each in (v if isinstance(v, list | tuple) else [v])]
    return torch.stack([each.detach().float().mean() for each in flat]).sum()
