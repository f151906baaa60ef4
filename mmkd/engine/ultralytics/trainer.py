"""Ultralytics' detection trainer with distillation terms among its losses."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.cfg import DEFAULT_CFG
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOCAL_RANK, LOGGER, RANK, YAML
from ultralytics.utils.torch_utils import torch_distributed_zero_first, unwrap_model

from mmkd.distillation import Distillation, Measured
from mmkd.dynamics import DynamicsSettings, check_blocks, recorded
from mmkd.dynamics_file import DYNAMICS_FILE, DynamicsFile
from mmkd.engine.last_batch import check_last_batch
from mmkd.engine.random_state import preserved_random_state
from mmkd.engine.settings import DistillSettings
from mmkd.engine.step_clock import StepClock
from mmkd.engine.ultralytics.resume import ExactResume
from mmkd.engine.ultralytics.spread_images import spread_images
from mmkd.engine.ultralytics.targets import targets_of
from mmkd.engine.ultralytics.teacher import YOLO_FORMAT, named_outputs, run_detector
from mmkd.errors import InputError, InputTypeError, TermError
from mmkd.targets import Targets
from mmkd.term_warnings import write_warnings
from mmkd.terms import Term

__all__ = ["OWNER", "Attached", "DistillTrainer", "attached_to", "distilling"]

# What errors call the settings: the class by which users give them.
OWNER = "DistillCallback"
# The trainer's own limit on the norm of the student's gradient.
_MAX_NORM = 10.0


class Attached:
    """Settings that travel to a trainer among its callbacks, as this object's bound method.

    Args:
        settings: Of the distillation.
        dynamics: What of it is recorded; None for nothing.
    """

    def __init__(self, settings: DistillSettings, dynamics: DynamicsSettings | None = None) -> None:
        self.settings, self.dynamics = settings, dynamics

    def on_train_start(self, trainer: Any) -> None:
        """Refuses a trainer in which nothing would be distilled.

        Raises:
            RuntimeError: The trainer does not distil.
        """
        if not isinstance(trainer, DistillTrainer):
            name = type(trainer).__name__
            raise TermError.at(
                OWNER,
                f"{name} would train without distillation. Train with model.train() of "
                "the model that was attached, or make the trainer from "
                f"mmkd.engine.ultralytics.distilling({name}).",
            )


class DistillTrainer(ExactResume):
    """A detection trainer whose settings are the :class:`Attached` among its callbacks.

    It asks nothing of the process that started the training, so that the processes which
    Ultralytics starts for several GPUs distil as well.
    """

    distillation: Distillation
    loss_names: tuple[str, ...]

    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: Any = None, _callbacks: Any = None
    ) -> None:
        self._joined = self._is_built = False
        self._begin_epoch()
        super().__init__(cfg, overrides, _callbacks)
        attached = attached_to(self)
        self._settings, self._recorded = attached.settings, attached.dynamics
        self._dynamics: dict[str, float] = {}
        self._last_record = 0
        if self.args.distill_model is not None:
            raise InputError.at(OWNER, "distill_model asks for a second distillation: leave it out")
        if self.args.compile:
            raise InputError.at(OWNER, "compile is not supported: leave it out")
        if self.ddp:
            _check_travels(self.callbacks)
            return
        self.add_callback("on_train_epoch_start", DistillTrainer._begin_epoch)
        # Before Ultralytics' loggers ask.
        self.callbacks["on_train_epoch_end"].insert(0, DistillTrainer._record_dynamics)
        self.add_callback("on_train_batch_start", DistillTrainer._begin_iteration)
        self.add_callback("on_train_batch_end", DistillTrainer._end_iteration)

    # Before training ----------------------------------------------------------------------

    def auto_batch(self) -> int:
        """The batch size that fits beside the teacher."""
        self._build_once()
        return super().auto_batch()

    def _build_train_pipeline(self) -> None:
        self._build_once()
        super()._build_train_pipeline()

    def _build_once(self) -> None:
        """Before the images are looked at, which may take long: what does not fit shows at
        once."""
        if self._is_built:
            return
        # One process after another: a teacher that is missing is downloaded once.
        with torch_distributed_zero_first(LOCAL_RANK):
            self.distillation = self._build_distillation()
        if self.world_size > 1:
            self.distillation.synchronize()
        self._is_built = True

    def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The student's optimizer, and in groups of their own the projectors' parameters.

        Both come from the trainer's own rules, so that learning rate, weight decay, warm-up and
        schedule treat a projector as they treat a layer of the student.
        """
        optimizer = super().build_optimizer(model, *args, **kwargs)
        parameters = self.distillation.parameters
        if parameters:
            distillers = _Network(self.distillation.distillers)
            rules = super().build_optimizer(distillers, *args, **kwargs)
            self.add_groups(optimizer, [group for group in rules.param_groups if group["params"]])

            # Apart from the student's own limit, which must not depend on the projectors.
            def limit(*_: Any) -> None:
                nn.utils.clip_grad_norm_(parameters, _MAX_NORM)

            optimizer.register_step_pre_hook(limit)
        return optimizer

    def _build_distillation(self) -> Distillation:
        half = torch.bfloat16 if self.args.amp == "bf16" else torch.float16
        student = unwrap_model(self.model)
        distillation = self._settings.build(
            student,
            YOLO_FORMAT,
            run_detector,
            lambda: (self.args.imgsz, self.args.imgsz),
            seed=self.args.seed,
            dtype=half if self.amp else None,
            named=named_outputs,
        )
        # What its batches hold (targets_of) is always the same.
        shown = Targets((self.args.imgsz, self.args.imgsz), boxes=(), indices=torch.empty(0))
        distillation.check_targets(lambda: shown)
        if RANK in (-1, 0):
            self._record(distillation)
        return distillation

    def _record(self, distillation: Distillation) -> None:
        """Logs the teachers, and leaves in the run's folder what ``args.yaml`` does not tell."""
        introductions = [teacher.introduction for teacher in distillation.teachers.values()]
        for each in introductions:
            LOGGER.info(each)
        record = {
            "teachers": introductions,
            "terms": {term.name: _described(term) for term in distillation.terms},
        }
        # YAML itself refuses tuples and what comes from other libraries.
        plain = json.loads(json.dumps(record, default=str))
        YAML.save(self.save_dir / "distill.yaml", plain)

    def _setup_train(self) -> None:
        super()._setup_train()
        self._clock = StepClock(self.device)
        self._keep_warnings()
        if self.world_size <= 1:
            loader = self.train_loader
            check_last_batch(self.distillation, len(loader.dataset), loader.batch_size)
        if self._recorded is not None and RANK in (-1, 0):
            student, count = unwrap_model(self.model), self._recorded.images
            with preserved_random_state():
                self._probes = {
                    split: spread_images(self, student, split, count) for split in ("train", "val")
                }
            blocks = self._recorded.blocks
            check_blocks(f"{OWNER} dynamics", self.distillation, self._probes.values(), blocks)
            self._file = DynamicsFile(self.save_dir / DYNAMICS_FILE, self.start_epoch)
            total = len(self.train_loader.dataset)
            self._every = self._recorded.every(total, total)
            LOGGER.info(f"{OWNER}: records every {self._every} epochs, and at the end")
        self._join()

    def _join(self) -> None:
        """Joins the student's loss. Until :meth:`_leave` the student must not be copied."""
        student = unwrap_model(self.model)
        self.distillation.attach()
        student.loss = functools.partial(self._distilled_loss, student.loss)
        self._joined = True

    def _leave(self) -> None:
        self.distillation.detach()
        vars(unwrap_model(self.model)).pop("loss", None)
        self._joined = False

    def _load_checkpoint_state(self, ckpt: dict) -> None:
        """Does so with the student as it was: the trainer copies it for a new EMA."""
        joined = self._joined
        if joined:
            self._leave()
        super()._load_checkpoint_state(ckpt)
        if joined:
            self._join()

    def train(self) -> None:
        """Trains, and leaves the student as it was found, also where an error ends it."""
        try:
            super().train()
            # One that patience or the clock has ended.
            if self._joined and self._last_record <= self.epoch:
                self._record_dynamics(is_last=True)
        finally:
            if self._joined:
                self._leave()

    # Each iteration -----------------------------------------------------------------------

    def _begin_epoch(self) -> None:
        self._sums: dict[str, Tensor | float] = {}
        self._counts: Counter[str] = Counter()

    def _begin_iteration(self) -> None:
        self._clock.start_step()
        self.distillation.begin(self._iteration, len(self.train_loader))

    def _distilled_loss(self, loss_of: Any, batch: dict, preds: Any = None) -> tuple[Tensor, dict]:
        student = unwrap_model(self.model)
        if student.training:
            self.distillation.arm()
        try:
            loss, items = loss_of(batch, preds)
        except RuntimeError:
            # Out of memory, perhaps: the trainer frees what it holds and tries a smaller batch.
            self.distillation.release()
            raise
        if not student.training:
            return loss, items
        measured: dict[str, Measured] = {}
        if self.distillation.fired:
            targets = targets_of(batch, self.train_loader.dataset)
            task = loss.detach().sum() / len(batch["img"])
            measured = self.distillation.measure(
                batch["img"], None, targets, self._clock.teacher, task
            )
        items = dict(items)
        for term in self.distillation.terms:
            value = measured[term.name].weighted if term.name in measured else loss.new_zeros(())
            items[self._column(term)] = value.detach()
        if not measured:
            return loss, items
        weighted = torch.stack([each.weighted for each in measured.values()])
        for name, each in measured.items():
            self._add({name: each.distance.detach()})
            self._add({f"weight_{name}": each.weight})
        self._add({"ratio": weighted.detach().sum() / task})
        # The trainer's losses are multiplied by the batch size, and so must these be.
        return torch.cat([loss.reshape(-1), weighted * len(batch["img"])]), items

    def _column(self, term: Term) -> str:
        return "kd_loss" if len(self.distillation.terms) == 1 else f"kd_{term.name}_loss"

    def _add(self, values: Mapping[str, Tensor | float]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] += 1

    def _end_iteration(self) -> None:
        self.distillation.check_fired(
            f"{type(unwrap_model(self.model)).__name__} was trained without a call of its loss(), "
            "which is where distillation joins"
        )
        self._add({f"share_{name}": each for name, each in self.distillation.shares.items()})
        due = self.distillation.watch.due()
        for warning in due:
            if RANK in (-1, 0):
                LOGGER.warning(warning.text)
        if due:
            self._keep_warnings()
        if self.distillation.factors:
            self._clock.stop_step()
            if self._clock.share is not None:
                self._add({"teacher_time_share": self._clock.share})

    def _record_dynamics(self, is_last: bool = False) -> None:
        self._dynamics = {}
        step = self.epoch + 1
        if self._recorded is None or RANK not in (-1, 0):
            return
        if step % self._every == 0 or step == self.epochs or is_last:
            self._last_record = step
            found = recorded(self.distillation, self._probes, self._recorded.blocks)
            rows = self._file.add(step, found)
            self._dynamics = {row.name: row.value for row in rows}

    def _keep_warnings(self) -> None:
        if RANK in (-1, 0):
            write_warnings(self.save_dir, self.distillation.watch.warnings)

    # What is reported -----------------------------------------------------------------------

    def label_loss_items(self, loss_items: Any = None, prefix: str = "train") -> Any:
        """Names the terms among the training losses only: nothing is distilled in validation.

        With these losses, Ultralytics' loggers (TensorBoard, W&B, MLflow and others) and
        ``results.csv`` get the epoch's unweighted distances, weights and shares of the gradient,
        the ratio, and the teacher's share of the time; the loggers alone what is recorded of the
        dynamics.
        """
        labels = super().label_loss_items(loss_items, prefix)
        if prefix == "train":
            if isinstance(labels, dict):
                return {**labels, **self._means(), **self._dynamics}
            return labels
        own = {f"{prefix}/{self._column(term)}" for term in self.distillation.terms}
        if isinstance(labels, dict):
            return {key: value for key, value in labels.items() if key not in own}
        return [key for key in labels if key not in own]

    def _means(self) -> dict[str, float]:
        terms = [term.name for term in self.distillation.terms]
        kinds = ("", "weight_", "share_")
        names = [
            *(f"{kind}{name}" for name in terms for kind in kinds),
            "ratio",
            "teacher_time_share",
        ]
        return {
            f"distill/{name}": float(self._sums.get(name, 0.0)) / max(self._counts[name], 1)
            for name in names
        }

    def save_metrics(self, metrics: dict) -> None:
        """Puts what distillation adds after the columns of a plain run."""
        groups = len(self.optimizer.param_groups)
        own = [
            *(f"train/{self._column(term)}" for term in self.distillation.terms),
            *(f"lr/pg{index}" for index in range(groups - self._own_groups, groups)),
            *self._means(),
        ]
        # Those have a file of their own: an epoch may have none, and a table's columns stay.
        plain = [key for key in metrics if key not in own and key not in self._dynamics]
        super().save_metrics({key: metrics[key] for key in [*plain, *own]})

    def progress_string(self) -> str:
        """The head of the progress line, of names that fit into its columns."""
        names = self.loss_names
        try:
            self.loss_names = tuple(
                n if len(n) <= 10 else n.removesuffix("_loss")[:10] for n in names
            )
            return super().progress_string()
        finally:
            self.loss_names = names


class _Network(nn.Module):
    """Distillers in the shape of a network of Ultralytics', whose last layer is its head."""

    def __init__(self, distillers: nn.ModuleDict) -> None:
        super().__init__()
        self.model = nn.ModuleList([distillers])


def distilling(trainer: type[DetectionTrainer]) -> type[DetectionTrainer]:
    """The distilling kind of a trainer class.

    Args:
        trainer: DetectionTrainer or a class derived from it.

    Raises:
        TypeError: Another class.
    """
    if not isinstance(trainer, type) or not issubclass(trainer, DetectionTrainer):
        raise InputTypeError.at(OWNER, f"expected a DetectionTrainer as trainer, got {trainer!r}")
    if issubclass(DistillTrainer, trainer):
        return DistillTrainer
    if issubclass(trainer, DistillTrainer):
        return trainer
    return type(f"Distill{trainer.__name__}", (DistillTrainer, trainer), {})


def _described(term: Term) -> dict[str, Any]:
    """A term as a user would write it."""
    taps = {
        side: str(found[0]) if len(found) == 1 else [str(tap) for tap in found]
        for side, found in (("student", term.student), ("teacher", term.teacher))
    }
    return {**asdict(term), **taps}


def attached_to(trainer: Any) -> Attached:
    """The settings that are attached to a trainer, or to a model that is to be trained.

    Raises:
        RuntimeError: There are none.
    """
    for functions in trainer.callbacks.values():
        for function in functions:
            owner = getattr(function, "__self__", None)
            if isinstance(owner, Attached):
                return owner
    raise TermError.at(
        OWNER,
        f"{type(trainer).__name__} has no DistillCallback among its callbacks, so it "
        "does not know what to distil: attach one to the model, and train with model.train()",
    )


def _check_travels(callbacks: dict) -> None:
    """Raises unless the settings reach the processes that Ultralytics starts for several GPUs."""
    import cloudpickle

    try:
        cloudpickle.dumps(callbacks)
    except Exception as error:  # Anything can be unpicklable in its own way.
        raise TermError.at(
            OWNER,
            f"for several GPUs, Ultralytics starts new processes, and these settings "
            f"cannot be handed to them ({error}): give the teacher as a file, or train on one GPU",
        ) from error
