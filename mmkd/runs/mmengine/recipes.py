"""Recipes of the MM family: a config for its Runner."""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd.custom_imports import import_custom
from mmkd.engine.mmengine.config_files import check_scope
from mmkd.engine.mmengine.exact_resume import TrainingState
from mmkd.engine.mmengine.models import unwrapped
from mmkd.engine.mmengine.resume_points import whole_checkpoints
from mmkd.engine.mmengine.safe_checkpoints import checkpoints_as_data, read_checkpoint
from mmkd.errors import InputError
from mmkd.evaluation.coco import evaluate_detections
from mmkd.runs.fingerprint import (
    ImageFiles,
    image_names,
    named_modules,
    with_networks_read,
    with_terms,
)
from mmkd.runs.mmengine.hook_settings import distils
from mmkd.runs.recipe import Trained
from mmkd.runs.record import TrainingRecord
from mmkd.work_dirs.environment import describe_environment
from mmkd.work_dirs.run_files import DETECTIONS

__all__ = ["ConfigRecipe", "MMRecipe"]

# What differs between two runs of one config without changing what they compute.
_IRRELEVANT = ("experiment_name", "visualizer", "vis_backends", "log_level", "work_dir")
# A checkpoint's entry from which a run goes on.
_CHECKPOINT_KEY = "mmkd_run"


@dataclass(frozen=True)
class ConfigRecipe(ABC):
    """An epoch-based config with ``work_dir`` and ``randomness.seed``.

    What the tasks share; each adds ``iterations``, ``files`` and ``scores``. See
    :class:`mmkd.runs.recipe.Recipe`.
    """

    config: Config

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.randomness.seed

    @property
    def work_dir(self) -> Path:
        """Where everything of the run goes."""
        return Path(self.config.work_dir)

    @property
    def checkpoint(self) -> str:
        """Where the run leaves its weights."""
        return str(self.work_dir / f"epoch_{self.config.train_cfg.max_epochs}.pth")

    def content(self) -> dict[str, Any]:
        """The config, less what only names the run; teachers' configs as they are read."""
        content = {k: v for k, v in self.config.to_dict().items() if k not in _IRRELEVANT}
        content["randomness"] = {k: v for k, v in content["randomness"].items() if k != "seed"}
        hooks = [_with_teacher_read(hook) for hook in content.get("custom_hooks") or []]
        return {**content, "custom_hooks": hooks}

    def files(self) -> dict[str, Path | ImageFiles]:
        """The user's own modules; the tasks add the data."""
        return {**named_modules(import_custom(self.config.get("custom_imports")))}

    def config_to_run(self) -> Config:
        """A copy of the config that leaves what :meth:`scores` needs."""
        config = copy.deepcopy(self.config)
        # Workers that live on carry random states that no checkpoint holds.
        if config.train_dataloader.get("persistent_workers"):
            config.train_dataloader.persistent_workers = False
        return config

    def scored_on(self) -> dict[str, str]:
        """``annotations`` and ``images``, where there are COCO annotations."""
        return {}

    @abstractmethod
    def scores(self, runner: Runner) -> dict[str, float]:
        """Of the trained model, in percent."""

    def train(self, on_iteration: Callable[[], None], record: TrainingRecord) -> Trained:
        """Runs the config, and scores the model of its last epoch.

        Raises:
            MissingExtraError: The package of its default scope is not installed.
        """
        check_scope(self.config.get("default_scope"))
        config = self.config_to_run()
        # Where this is another process than the one that read the config.
        import_custom(config.get("custom_imports"))
        config.experiment_name = f"{self.work_dir.name}_{time.time_ns()}"
        if config.get("visualizer"):
            config.visualizer.name = config.experiment_name
        checkpoint = self._checkpoint_to_go_on_from(record)
        if checkpoint is not None:
            config.merge_from_dict(dict(resume=True, load_from=str(checkpoint)))
        hook = _RunHook(on_iteration, record)
        with checkpoints_as_data(config.get("allow_pickle", False)):
            runner = Runner.from_cfg(config)
            runner.register_hook(hook)
            runner.train()
        if not hook.has_trained and runner.val_loop is not None:
            # It was interrupted after its last epoch, so the validation may be missing.
            runner.val_loop.run()
        return Trained(
            parameters=sum(p.numel() for p in runner.model.parameters()),
            training_seconds=record.training_seconds,
            checkpoint=self.checkpoint,
            scores=self.scores(runner),
            iterations=runner.max_iters,
            initial_weights=record.initial_weights,
            environment=describe_environment(next(runner.model.parameters()).device.type),
            **self.scored_on(),
        )

    def _checkpoint_to_go_on_from(self, record: TrainingRecord) -> Path | None:
        """The newest that is whole and this run's own: others may lie beside it."""
        if not record.is_started:
            return None
        for file in whole_checkpoints(self.work_dir):
            with suppress(InputError):
                if _run_of(read_checkpoint(file, "cpu")) == record.fingerprint:
                    return file
        return None


@dataclass(frozen=True)
class MMRecipe(ConfigRecipe):
    """A detection config with a CocoMetric for validation, which it runs at its end."""

    @property
    def annotations(self) -> Path:
        """COCO annotations of the validation images."""
        return Path(self.config.val_evaluator.ann_file)

    @property
    def iterations(self) -> int:
        """Training iterations, from the annotation file; an estimate where images are left out or
        repeated."""
        images = len(image_names(self.training_annotations))
        batches = -(-images // self.config.train_dataloader.batch_size)
        return batches * self.config.train_cfg.max_epochs

    @property
    def training_annotations(self) -> Path:
        """COCO annotations of the training images."""
        dataset = self._training_set
        return Path(dataset.get("data_root") or "") / dataset.ann_file

    @property
    def _training_set(self) -> ConfigDict:
        """The data set, or what it wraps."""
        dataset = self.config.train_dataloader.dataset
        while "dataset" in dataset:
            dataset = dataset.dataset
        return dataset

    def files(self) -> dict[str, Path | ImageFiles]:
        """Annotations and images, and the user's own modules."""
        training, scored = self.training_annotations, self.annotations
        images = Path(self.scored_on()["images"])
        return {
            "training annotations": training,
            "annotations": scored,
            "training images": ImageFiles(_image_folder(self._training_set), image_names(training)),
            "images": ImageFiles(images, image_names(scored)),
            **super().files(),
        }

    def config_to_run(self) -> Config:
        """Its own validation writes the detections."""
        config = super().config_to_run()
        prefix = str(self.work_dir / DETECTIONS).removesuffix(".bbox.json")
        config.val_evaluator.outfile_prefix = prefix
        return config

    def scored_on(self) -> dict[str, str]:
        """The validation's."""
        images = _image_folder(self.config.val_dataloader.dataset)
        return dict(annotations=str(self.annotations), images=str(images))

    def scores(self, runner: Runner) -> dict[str, float]:
        """Average precision of the last validation's detections, by pycocotools."""
        return evaluate_detections(self.annotations, self.work_dir / DETECTIONS).as_dict()


def _with_teacher_read(hook: Any) -> Any:
    if not isinstance(hook, Mapping) or "teacher" not in hook:
        return hook
    content = {**hook, "teacher": with_networks_read(hook["teacher"])}
    return with_terms(content) if distils(hook) else content


def _image_folder(dataset: Mapping[str, Any]) -> Path:
    prefix = (dataset.get("data_prefix") or {}).get("img") or ""
    return Path(dataset.get("data_root") or "", prefix)


class _RunHook(Hook):
    """Reports every iteration, keeps the record, and makes resumed runs exact.

    Each checkpoint gets the random states under a key of its own, as MMEngine's leave them out.
    """

    # Before a DistillHook, which may copy weights of its teacher's into the network.
    priority = "VERY_HIGH"

    def __init__(self, on_iteration: Callable[[], None], record: TrainingRecord) -> None:
        self._on_iteration = on_iteration
        self._record = record
        self._state = TrainingState()
        self.has_trained = False

    def before_train(self, runner: Runner) -> None:
        if runner.epoch == 0:
            model = runner.model
            self._record.start(unwrapped(model))

    def before_train_epoch(self, runner: Runner) -> None:
        self._state.go_on(runner, runner.epoch)
        self._state.note_training()
        self.has_trained = True
        self._record.start_epoch(runner.epoch)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._on_iteration()

    def after_train_epoch(self, runner: Runner) -> None:
        self._record.end_epoch()

    def before_val_epoch(self, runner: Runner) -> None:
        self._state.note_validation()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint[_CHECKPOINT_KEY] = dict(
            run=self._record.fingerprint, **self._state.state(runner)
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # Weights to start from may be another run's, which drew what is not drawn here.
        if runner._resume and _CHECKPOINT_KEY in checkpoint:
            self._state.resume(checkpoint[_CHECKPOINT_KEY], runner)


def _run_of(checkpoint: Any) -> Any:
    noted = checkpoint.get(_CHECKPOINT_KEY) if isinstance(checkpoint, dict) else None
    return noted.get("run") if isinstance(noted, dict) else None
