"""A config of the MM family with a DistillHook, and the same config without it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmkd.engine.mmengine.config_files import open_config
from mmkd.engine.mmengine.distill_hook import DistillHook
from mmkd.engine.teachers import TeacherSettings, parse_teachers
from mmkd.errors import InputError
from mmkd.runs.mmengine.classification import ClassificationRecipe
from mmkd.runs.mmengine.hook_settings import distils, records, type_of
from mmkd.runs.mmengine.recipes import MMRecipe

__all__ = ["MMPair"]


@dataclass(frozen=True)
class MMPair:
    """See :class:`mmkd.runs.paired.Pair`.

    Args:
        file: Of the config, for errors.
        config: With one DistillHook.
    """

    file: Path
    config: Config

    @classmethod
    def read(cls, file: Path, options: Sequence[str]) -> MMPair:
        """Reads a config and ``key=value`` settings that replace its own.

        Raises:
            InputError: It cannot be compared, and why.
            FileNotFoundError: No such config, or no such checkpoint of a teacher.
        """
        pair = cls(file, open_config(file, options))
        pair._check_hook()
        pair._check_schedule()
        if not pair._is_classifier:
            pair._check_evaluation()
        return pair

    @property
    def teachers(self) -> dict[str, TeacherSettings]:
        """By name."""
        return parse_teachers("DistillHook", self._hook.teacher)

    @property
    def scored_on(self) -> tuple[Path, Path] | None:
        """Annotation file and images; None for a classifier."""
        if self._is_classifier:
            return None
        where = MMRecipe(self.config).scored_on()
        return Path(where["annotations"]), Path(where["images"])

    def recipe(
        self, is_distilled: bool, seed: int, work_dir: Path
    ) -> MMRecipe | ClassificationRecipe:
        """Of one run; plain is the config without its distillation, and nothing else."""
        config = copy.deepcopy(self.config)
        config.work_dir = str(work_dir)
        config.randomness = {**(config.get("randomness") or {}), "seed": seed}
        if not is_distilled:
            config.custom_hooks = [
                hook for hook in config.custom_hooks if not distils(hook) and not records(hook)
            ]
        return ClassificationRecipe(config) if self._is_classifier else MMRecipe(config)

    def trial(self, work_dir: Path) -> MMRecipe | ClassificationRecipe:
        """The distilled run as it begins, shown to no service that keeps a record of runs."""
        recipe = self.recipe(True, 0, work_dir)
        recipe.config.visualizer = None
        return recipe

    @property
    def _hook(self) -> ConfigDict:
        [hook] = (hook for hook in self.config.custom_hooks if distils(hook))
        return hook

    @property
    def _is_classifier(self) -> bool:
        return type_of(self.config.get("test_evaluator")) == "Accuracy"

    def _check_hook(self) -> None:
        count = sum(distils(hook) for hook in self.config.get("custom_hooks") or [])
        if count != 1:
            raise InputError(
                f"{self.file}: expected one mmkd.DistillHook in custom_hooks, found {count}. The "
                "plain run is the same config without it"
            )
        try:
            DistillHook(**{k: v for k, v in self._hook.to_dict().items() if k != "type"})
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.file}: {error}") from error
        for teacher in self.teachers.values():
            teacher.check()

    def _check_schedule(self) -> None:
        loop = self.config.get("train_cfg") or {}
        if "max_epochs" not in loop:
            raise InputError(
                f"{self.file}: expected train_cfg with max_epochs, found "
                f"{dict(loop) or 'no train_cfg'}. Only trainings by epochs can be compared"
            )
        epochs = loop["max_epochs"]
        if not isinstance(epochs, int) or epochs < 1:
            raise InputError(
                f"{self.file}: train_cfg.max_epochs: expected a number of epochs, 1 or more, got "
                f"{epochs!r}"
            )

    def _check_evaluation(self) -> None:
        evaluator = self.config.get("val_evaluator")
        if type_of(evaluator) != "CocoMetric":
            raise InputError(
                f"{self.file}: expected one CocoMetric as val_evaluator (or an Accuracy as "
                f"test_evaluator, for a classifier), found {type_of(evaluator) or 'none'}"
            )
        for name, key in (
            ("val_evaluator", "ann_file"),
            ("val_dataloader", "dataset"),
            ("train_dataloader", "dataset"),
        ):
            if not (self.config.get(name) or {}).get(key):
                raise InputError(f"{self.file}: {name} has no {key}, which is needed")
        recipe = MMRecipe(self.config)
        try:
            files = [recipe.training_annotations, recipe.annotations]
        except AttributeError as error:
            raise InputError(
                f"{self.file}: expected a COCO data set with ann_file in train_dataloader: {error}"
            ) from error
        for file in files:
            if not file.is_file():
                raise InputError(f"{self.file}: there is no annotation file {file}")
