"""Plain and distilled from the same start, several seeds, side by side: ``mmkd compare``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mmkd.configs import config_path
from mmkd.engine.teachers import TeacherSettings
from mmkd.errors import InputError
from mmkd.evaluation.coco import evaluate_detections
from mmkd.evaluation.coco_files import read_annotations
from mmkd.evaluation.comparison import BASELINE, DISTILLED, TEACHER
from mmkd.extras import extra
from mmkd.runs.recipe import Recipe, Trained
from mmkd.runs.record import TrainingRecord
from mmkd.runs.running import (
    Job,
    holds_another_run,
    run_all,
    train_and_evaluate,
)
from mmkd.work_dirs.run_files import DETECTIONS
from mmkd.work_dirs.run_result import RunResult

__all__ = ["Pair", "PairedRuns", "compare_config"]


class Pair(Protocol):
    """One config of a distillation, of any trainer."""

    @property
    def teachers(self) -> Mapping[str, TeacherSettings]:
        """Their settings by name."""

    @property
    def scored_on(self) -> tuple[Path, Path] | None:
        """COCO annotation file and folder of the images; None where no boxes are scored."""

    def recipe(self, is_distilled: bool, seed: int, work_dir: Path) -> Recipe:
        """Of a run with the distillation, or of one without it that has all else in common."""


@dataclass(frozen=True)
class PairedRuns:
    """What the trainings of a comparison came to.

    Args:
        title: The config and the seeds.
        results: Plain runs first, then the distilled ones, each by seed; the teacher last, where
            it was scored.
        notes: Sentences on how they were made.
    """

    title: str
    results: list[RunResult]
    notes: list[str]


def compare_config(
    config: str | Path,
    seeds: Sequence[int],
    out: str | Path,
    *,
    options: Sequence[str] = (),
    workers: int = 1,
) -> PairedRuns:
    """Trains a config with and without its distillation, from the same weights.

    ``out`` gets ``plain_seed<k>``, ``distilled_seed<k>`` and, where it is a detector of the same
    classes, ``teacher``. Finished runs are kept, and an interrupted one goes on from its last
    checkpoint.

    Args:
        config: Config of the MM family with a DistillHook, a CocoMetric for its validation (or an
            Accuracy for its test) and training by epochs; or YAML file of ``mmkd yolo train``. One
            of mmkd's own goes by its name, ``mmkd::...``.
        seeds: One plain and one distilled run each.
        out: Folder.
        options: ``key=value`` settings that replace the config's.
        workers: Trainings at a time, each on one thread if there are several.

    Raises:
        InputError: The config cannot be compared, ``out`` holds runs of another comparison, or the
            two runs of a seed began from different weights.
        FileNotFoundError: No such config, or no such checkpoint of a teacher.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds: expected at least one, each once, got {list(seeds)}")
    if workers < 1:
        raise InputError(f"workers: expected 1 or more, got {workers}")
    # Recipes know a run by its folder too.
    config, out = Path(config_path(str(config))), Path(out).resolve()
    pair = _read_pair(config, options, out)
    # The distilled run first: what is wrong with its teacher or terms shows at once.
    jobs = [
        Job(name, pair.recipe(name == DISTILLED, seed, out / f"{name}_seed{seed}"), name)
        for seed in seeds
        for name in (DISTILLED, BASELINE)
    ]
    teacher = _teacher_recipe(pair, out / TEACHER)
    recipes = [job.recipe for job in jobs]
    _refuse_others([*recipes, *([] if isinstance(teacher, str) else [teacher])])
    best, notes = _score_teacher(teacher)
    results = run_all(jobs, workers)
    check_same_start(results)
    notes.append("Plain and distilled runs of a seed began from the same weights.")
    ordered = sorted(results, key=lambda result: (result.name != BASELINE, result.seed))
    title = f"{config.stem}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return PairedRuns(title, [*ordered, *best], notes)


def _read_pair(config: Path, options: Sequence[str], out: Path) -> Pair:
    if config.suffix not in (".yaml", ".yml"):
        from mmkd.runs.mmengine.pair import MMPair

        return MMPair.read(config, options)
    with extra("yolo", f"{config}, a YAML file and so one of `mmkd yolo train`,"):
        from mmkd.runs.ultralytics.pair import YOLOPair
    return YOLOPair.read(config, options, out / "annotations")


def _refuse_others(recipes: Sequence[Recipe]) -> None:
    """Nothing that a user trained is overwritten."""
    others = [str(recipe.work_dir) for recipe in recipes if holds_another_run(recipe)]
    if others:
        raise InputError(
            f"{', '.join(others)}: trained with another config, data or teacher, or in another "
            "folder and moved here since, and not overwritten: choose another --out, or move it "
            "back"
        )


def check_same_start(results: Sequence[RunResult]) -> None:
    """Makes sure that a seed's runs, but for a teacher's, began from the same weights.

    Raises:
        InputError: They did not.
    """
    starts: dict[int, dict[str, str | None]] = {}
    for result in results:
        if result.name != TEACHER:
            starts.setdefault(result.seed, {})[result.name] = result.initial_weights
    for seed, by_name in starts.items():
        if len(set(by_name.values())) > 1:
            begun = ", ".join(f"{name} from {str(d)[:12]}" for name, d in by_name.items())
            raise InputError(
                f"seed {seed}: the runs began from different weights ({begun}), so they cannot be "
                "compared. Something in the config draws random numbers before the network is "
                "made, or makes it differently with the distillation"
            )


# The teacher --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TeacherRecipe:
    """Nothing to train: a checkpoint that is only scored. See :class:`Recipe`."""

    checkpoint: Path
    config: str | None
    annotations: Path
    images: Path
    work_dir: Path
    seed: int = 0
    iterations: int = 0

    def content(self) -> dict[str, Any]:
        return dict(config=self.config)

    def files(self) -> list[Path]:
        return [self.checkpoint, self.annotations, *([Path(self.config)] if self.config else [])]

    def train(self, on_iteration: Callable[[], None], record: TrainingRecord) -> Trained:
        from mmkd.runs.detect import detect_with

        detections = self.work_dir / DETECTIONS
        detections.unlink(missing_ok=True)
        truth = read_annotations(self.annotations)
        found = detect_with(
            self.checkpoint, truth, self.images, detections, config=self._config_file()
        )
        return Trained(
            parameters=found.parameters,
            training_seconds=0.0,
            checkpoint=str(self.checkpoint),
            scores=evaluate_detections(self.annotations, detections).as_dict(),
            annotations=str(self.annotations),
            images=str(self.images),
        )

    def _config_file(self) -> Path | None:
        if self.config is None:
            return None
        if "::" not in self.config:
            return Path(self.config)
        from mmkd.engine.mmengine.config_files import open_config

        file = self.work_dir / "config.py"
        open_config(self.config).dump(file)
        return file


def _teacher_recipe(pair: Pair, work_dir: Path) -> _TeacherRecipe | str:
    """How to score the teacher, or why it cannot be."""
    if pair.scored_on is None:
        return "the config trains no detector"
    if len(pair.teachers) > 1:
        return f"there are several ({', '.join(pair.teachers)})"
    [teacher] = pair.teachers.values()
    found = teacher.files()
    if isinstance(found, str):
        return found
    return _TeacherRecipe(found.checkpoint.resolve(), found.config, *pair.scored_on, work_dir)


def _score_teacher(teacher: _TeacherRecipe | str) -> tuple[list[RunResult], list[str]]:
    """Its result, or a note that says why there is none."""
    reason = teacher
    if isinstance(teacher, _TeacherRecipe):
        try:
            return [train_and_evaluate(teacher, TEACHER)], []
        except InputError as error:
            reason = str(error)
    return [], [f"The teacher was not scored: {str(reason).rstrip('.')}."]
