"""Distillation in MMEngine's trainer: MMDetection, MMPretrain and their relatives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn

from mmkd.distillation import Distillation
from mmkd.engine.inherit import Inheritance, inheritances, parse_inherit
from mmkd.engine.input_conversion import ImageFormat
from mmkd.engine.last_batch import check_last_batch
from mmkd.engine.mmengine.detector_heads import (
    BatchSamples,
    named_outputs,
    proposals_module,
    run_model,
)
from mmkd.engine.mmengine.exact_resume import TrainingState
from mmkd.engine.mmengine.loaded_order import loaded_order
from mmkd.engine.mmengine.models import inputs_and_samples, unwrapped
from mmkd.engine.mmengine.optimizer import (
    add_distillers,
    put_back_distillers,
    take_out_distillers,
)
from mmkd.engine.mmengine.spread_images import image_size, spread_batch
from mmkd.engine.mmengine.targets import targets_of
from mmkd.engine.probe import ProbeSize
from mmkd.engine.same_teachers import check_same_teachers, digests_of
from mmkd.engine.settings import DistillSettings
from mmkd.engine.step_clock import StepClock
from mmkd.errors import InputError
from mmkd.features import OwnHook
from mmkd.registry import HOOKS
from mmkd.targets import Targets
from mmkd.term_warnings import write_warnings
from mmkd.terms import Term

__all__ = ["DistillHook", "iterations_per_epoch"]

CHECKPOINT_KEY = "mmkd"
_LOGGED_ONCE = ("train/distill_ratio", "train/teacher_time_share")


@HOOKS.register_module()
class DistillHook(Hook):
    """Adds distillation terms to the losses of the model that a Runner trains.

    Outside training it does nothing and needs no teacher. The student's ``state_dict`` keeps
    its keys; the projectors ride in the checkpoint under the key ``mmkd``.

    Args:
        teacher: ``dict(config=..., checkpoint=...)``: a config file (a path or
            ``'mmdet::...'``) and its weights (``.pth`` or ``.safetensors``). Instead of
            ``config``, ``model=dict(type=...)`` names a registered module; ``mean``, ``std`` and
            ``order`` say which images it takes, where its own preprocessor does not.
            ``allow_pickle=True`` lets the file execute code. ``dict(yolo='yolov5m.pt')`` is an
            Ultralytics detector, ``dict(module=..., mean=..., std=..., order='rgb')`` any torch
            module (which no config holds: ``runner.register_hook(DistillHook(...))``),
            ``dict(ema=0.999)`` the student's moving average, ``dict(student=True)`` the student
            itself. For several teachers, a dict of such dicts by name.
        terms: Name to settings, each of which may be left out: ``student`` and ``teacher``
            (module paths, ``'backbone'``; of heads ``'head.classes'``, ``'head.boxes'``,
            ``'rpn.objectness'``, ``'roi.classes'``), ``level`` (which of several outputs, the last;
            a list makes one term each) or ``student_level`` and ``teacher_level``, ``levels`` (or
            ``student_levels`` and ``teacher_levels``: one term of several, for what takes them all
            at once), ``source`` (which of several teachers), ``projector``, ``normalizer``,
            ``loss``, ``view``, ``weight``, ``student_channels``, ``teacher_channels``,
            ``student_extra_tokens``, ``teacher_extra_tokens``, ``student_classifier``,
            ``teacher_classifier`` (module paths; see :class:`mmkd.FeatureDistiller`; channels are
            measured where left out) and ``schedule`` (see :class:`mmkd.terms.Schedule`). ``type``
            names a :class:`mmkd.distiller.Distiller` of one's own, whose settings take the place of
            projector, normalizer, loss and view. None: :data:`mmkd.terms.DEFAULTS`, one a teacher:
            the neck where student and teachers have one, else the backbone.
        inherit: Student module to teacher module whose weights it starts from, such as
            ``{'head.fc': 'head.fc'}``, or ``{'neck': 'neck', 'bbox_head': 'bbox_head'}``, of which
            layers of another shape are left as they are. They are copied when a training begins,
            not on resume.
        probe_size: Height and width in pixels, or one number for both, of the blank image on
            which taps, channels and weights are checked before training. None: those of the first
            training image.

    Logged: ``loss_distill_<term>`` (weighted, part of the objective), ``distill_<term>``
    (unweighted), ``distill_weight_<term>`` (times the schedule's factor),
    ``distill_share_<term>`` (of the gradient at the student's feature; see
    :class:`mmkd.balance.Arrived`), ``distill_ratio`` (distillation to task loss; 0 where there is
    no task loss), ``teacher_time_share`` (of the step's time). A term that
    cannot help (:class:`mmkd.term_watch.TermWatch`) is a warning in the log and in
    ``distill_warnings.json``.

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
        inherit: Mapping[str, str] | None = None,
        probe_size: ProbeSize | None = None,
    ) -> None:
        self._settings = DistillSettings.parse("DistillHook", teacher, terms, probe_size)
        _check_names([term.name for term in self._settings.terms])
        self._inherit = parse_inherit("DistillHook", inherit, len(self._settings.teachers))
        self._distillation: Distillation | None = None
        self._state = TrainingState()
        self._added_groups = 0
        self._is_resumed = False
        self._inherited: dict[str, Inheritance] = {}
        self._handles: list[Any] = []
        self._proposals: Tensor | None = None

    @property
    def terms(self) -> list[Term]:
        """What is compared; before training, with taps as they were given."""
        return self._distillation.terms if self._distillation else list(self._settings.terms)

    @property
    def teachers(self) -> dict[str, Any]:
        """The built teachers by name; empty outside training."""
        return self._distillation.teachers if self._distillation else {}

    @property
    def distillation(self) -> Distillation | None:
        """All terms, built; None outside training."""
        return self._distillation

    @classmethod
    def among(cls, hooks: Iterable[Hook]) -> DistillHook | None:
        """The one of a Runner's hooks; None where there is none."""
        return next((hook for hook in hooks if isinstance(hook, cls)), None)

    @property
    def distillers(self) -> nn.ModuleDict | None:
        """The built distillers by term; None outside training."""
        return self._distillation.distillers if self._distillation else None

    @cached_property
    def _digests(self) -> dict[str, str]:
        return digests_of(self.teachers)

    # Before training ----------------------------------------------------------------------

    def before_run(self, runner: Runner) -> None:
        """Builds teachers and projectors, and checks them, where a training begins."""
        is_training = isinstance(runner.optim_wrapper, OptimWrapper)
        if not is_training or self._distillation is not None:
            return
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise InputError.at(
                "DistillHook", "optim_wrapper holds several optimizers, expected one"
            )
        if sum(isinstance(hook, DistillHook) for hook in runner.hooks) > 1:
            raise InputError.at(
                "DistillHook", "custom_hooks holds several, expected one with all terms"
            )
        self._student = unwrapped(runner.model)
        device = next(self._student.parameters()).device
        first = cache(
            lambda: spread_batch(runner.train_dataloader, self._student.data_preprocessor, 1)
        )
        self._distillation = distillation = self._settings.build(
            self._student,
            replace(
                ImageFormat.of(self._student.data_preprocessor),
                loaded=loaded_order(runner.train_dataloader.dataset),
            ),
            run_model,
            lambda: image_size("DistillHook", first),
            seed=runner.seed or 0,
            named=named_outputs,
        )
        distillation.check_targets(lambda: self._shown(first()))
        for teacher in self.teachers.values():
            runner.logger.info(teacher.introduction)
        self._match_weights(runner)
        distillers = [distillation.distiller(term) for term in self.terms]
        self._added_groups = add_distillers(runner, distillers)
        if runner.world_size > 1:
            distillation.synchronize()
        self._clock = StepClock(device)

    def _shown(self, batch: Mapping[str, Any]) -> Targets:
        """By the images of a batch that no training step was made of."""
        samples = BatchSamples(batch.get("data_samples") or ())
        if proposals_module(self._student) is not None:
            samples.proposals = torch.zeros(0, 5)
        return targets_of(batch["inputs"], samples)

    def _match_weights(self, runner: Runner) -> None:
        if self._inherit:
            [teacher] = self.teachers.values()
            self._inherited = inheritances("DistillHook", self._student, teacher, self._inherit)
        for name, module in self._student.named_modules():
            path = f"{name}.fc"
            if getattr(module, "freeze_classifier", False) and path not in self._inherit:
                raise InputError.at(
                    "DistillHook inherit",
                    f"the student's {path} is frozen, so it needs the weights "
                    f"of the teacher's classifier: inherit={{{path!r}: 'head.fc'}}",
                )

    def before_train(self, runner: Runner) -> None:
        """Attaches to the student: by now it has been copied and wrapped by whoever does."""
        distillation = self._built
        # Not earlier: the Runner initialises the student's weights, or loads them, in between.
        for path, inherited in self._inherited.items():
            if not self._is_resumed:
                inherited.take_over()
                runner.logger.info(f"DistillHook: {path} {inherited}")
        distillation.attach()
        self._handles = [
            self._student.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            self._student.register_forward_hook(self._after_forward, with_kwargs=True),
        ]
        if (extractor := proposals_module(self._student)) is not None:
            note = OwnHook(extractor, self._note_proposals)
            self._handles.append(extractor.register_forward_pre_hook(note))
        self._epoch_length = iterations_per_epoch(runner)
        for term in self.terms:
            distiller = distillation.distiller(term)
            if not distiller.is_on:
                key = (
                    f"{term.key}.weight"
                    if distiller.balance is None
                    else f"{term.key}.weight.share"
                )
                runner.logger.warning(f"DistillHook: {key} is 0: it never runs")
        self._keep_warnings(runner)
        if runner.world_size == 1:
            _check_last_batch(runner, distillation)

    def after_train(self, runner: Runner) -> None:
        """Leaves the student as it was found."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._built.detach()

    @property
    def _built(self) -> Distillation:
        assert self._distillation is not None
        return self._distillation

    # Each iteration -----------------------------------------------------------------------

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Decides which terms are on."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._state.go_on(runner, runner.iter, self._built.modules)
        self._state.note_training()
        self._clock.start_step()
        self._built.begin(runner.iter, self._epoch_length)

    def _before_forward(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if module.training and kwargs.get("mode") == "loss":
            self._built.arm()

    def _note_proposals(self, module: nn.Module, args: tuple) -> None:
        if module.training:
            self._proposals = args[1]

    def _after_forward(
        self, module: nn.Module, args: tuple, kwargs: dict, output: Any
    ) -> dict[str, Tensor] | None:
        if not self._built.fired or not module.training or kwargs.get("mode") != "loss":
            return None
        inputs, samples = inputs_and_samples(args, kwargs)
        losses: dict[str, Tensor] = dict(output)
        task = _total(losses)
        context = BatchSamples(samples or ())
        context.proposals, self._proposals = self._proposals, None
        targets = targets_of(inputs, context)
        measured = self._built.measure(inputs, context, targets, self._clock.teacher, task)
        for name, each in measured.items():
            losses[f"distill_{name}"] = each.distance.detach()
            losses[f"loss_distill_{name}"] = each.weighted
            losses[f"distill_weight_{name}"] = torch.as_tensor(each.weight).to(task)
        ratio = (_total(losses).detach() - task) / task.clamp_min(1e-12)
        losses["distill_ratio"] = ratio.where(task != 0, 0)
        return losses

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Logs what is known after the backward pass; checks that every term has fired."""
        self._log_what_is_off(runner)
        self._built.check_fired(
            f"{type(self._student).__name__} was trained without a call of its "
            "forward(mode='loss'), which is where distillation joins"
        )
        for name, share in self._built.shares.items():
            runner.message_hub.update_scalar(f"train/distill_share_{name}", share)
        self._warn(runner)
        if self._built.factors:
            self._clock.stop_step()
            if self._clock.share is not None:
                runner.message_hub.update_scalar("train/teacher_time_share", self._clock.share)
        if runner.world_size > 1 and _saves_iterations(runner):
            self._state.gather(runner, self._built.modules)

    def _warn(self, runner: Runner) -> None:
        due = self._built.watch.due()
        for warning in due:
            runner.logger.warning(warning.text)
        if due:
            self._keep_warnings(runner)

    def _keep_warnings(self, runner: Runner) -> None:
        if runner.rank == 0:
            write_warnings(Path(runner.work_dir), self._built.watch.warnings)

    def after_train_epoch(self, runner: Runner) -> None:
        """Prepares what several processes save."""
        self._state.gather(runner, self._built.modules)

    def _log_what_is_off(self, runner: Runner) -> None:
        """MMEngine goes on logging the last value of what is no longer reported."""
        on = self._built.factors
        for key in _logged(term.name for term in self.terms if term.name not in on):
            runner.message_hub.update_scalar(key, 0.0)
        if not on:
            for key in _LOGGED_ONCE:
                runner.message_hub.update_scalar(key, 0.0)

    # Checkpoints --------------------------------------------------------------------------

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Adds, under a key of its own, all that a run without the hook knows nothing of."""
        if self.distillers is None:
            return
        hub = checkpoint["message_hub"]
        own = {*_logged(term.name for term in self.terms), *_LOGGED_ONCE}
        scalars = {key: each for key, each in hub["log_scalars"].items() if key in own}
        # Nothing that the run still uses is changed.
        checkpoint["message_hub"] = {
            **hub,
            "log_scalars": {k: v for k, v in hub["log_scalars"].items() if k not in own},
            "resumed_keys": {k: v for k, v in hub["resumed_keys"].items() if k not in scalars},
            CHECKPOINT_KEY: scalars,
        }
        checkpoint[CHECKPOINT_KEY] = dict(
            distillers=self._built.state_dict(),
            optimizer=take_out_distillers(checkpoint, self._added_groups),
            teachers=dict(self._digests),
            watch=self._built.watch.state_dict(),
            **self._state.state(runner),
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes it back where a training is resumed."""
        if self.distillers is None or not runner._resume:
            return
        if CHECKPOINT_KEY not in checkpoint:
            raise InputError.at(
                "DistillHook",
                "the checkpoint to resume from was written without distillation, "
                "so it holds no projectors: start from its weights with load_from instead of "
                "resume, or remove the hook",
            )
        self._is_resumed = True
        state = checkpoint[CHECKPOINT_KEY]
        check_same_teachers("DistillHook teacher", state.get("teachers", {}), self._digests)
        self._built.load_state_dict(state["distillers"])
        self._built.watch.load_state_dict(state.get("watch"))
        put_back_distillers(checkpoint, state.get("optimizer", {}))
        hub = checkpoint["message_hub"]
        scalars = hub.get(CHECKPOINT_KEY, {})
        hub["log_scalars"].update(scalars)
        hub["resumed_keys"].update(dict.fromkeys(scalars, True))
        self._state.resume(state, runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Notes that what is saved next has the validation's draws behind it."""
        self._state.note_validation()

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Prepares what several processes save of their best epoch."""
        if self._distillation is not None:
            self._state.gather(runner, self._distillation.modules)

    def before_train_epoch(self, runner: Runner) -> None:
        """Continues the random states of the run that was stopped."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._state.go_on(runner, runner.epoch, self._built.modules)


def _logged(names: Iterable[str]) -> list[str]:
    """What is logged of terms."""
    prefixes = ("loss_distill_", "distill_", "distill_weight_", "distill_share_")
    return [f"train/{prefix}{name}" for name in names for prefix in prefixes]


def _saves_iterations(runner: Runner) -> bool:
    """Whether a checkpoint follows the iteration that is over."""
    return any(
        hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
        or (hook.save_last and hook.is_last_train_iter(runner))
        for hook in runner.hooks
        if isinstance(hook, CheckpointHook) and not hook.by_epoch
    )


def iterations_per_epoch(runner: Runner) -> int:
    """By which schedules count epochs, also in a loop that counts iterations."""
    loader = runner.train_dataloader
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    # Every process's infinite sampler counts the whole data set.
    processes = runner.world_size if isinstance(sampler, InfiniteSampler) else 1
    return max(1, round(len(loader) / processes))


def _check_last_batch(runner: Runner, distillation: Distillation) -> None:
    loader = runner.train_dataloader
    # One that groups images by their shape holds as many in the end as one that does not.
    batches = loader.batch_sampler
    size, drops_last = (getattr(batches, name, None) for name in ("batch_size", "drop_last"))
    sampler = getattr(batches, "sampler", loader.sampler)
    if isinstance(sampler, InfiniteSampler) or drops_last:
        return
    if isinstance(size, int) and hasattr(sampler, "__len__"):
        drop_last = "train_dataloader.drop_last=True (or that of its batch_sampler)"
        check_last_batch(distillation, len(sampler), size, drop_last)
        return
    for term in distillation.terms_on_two_images:
        runner.logger.warning(
            f"DistillHook: {term.key} needs two images in every batch, and those of "
            f"{type(batches).__name__} are not known: a batch of one will end the training"
        )


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if "loss" in name:
            raise InputError.at(
                "DistillHook terms",
                f"{name!r} contains 'loss', so what is only logged under it "
                "would enter the objective (MMEngine adds up every such key): choose another name",
            )


def _total(losses: dict[str, Any]) -> Tensor:
    """The objective, as the model's ``parse_losses`` sums it, without gradient."""
    values = [value for key, value in losses.items() if "loss" in key]
    flat = [each for v in values for each in (v if isinstance(v, list | tuple) else [v])]
    return torch.stack([each.detach().float().mean() for each in flat]).sum()
