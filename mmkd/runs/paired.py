"""Plain and distilled from the same start, several seeds, side by side: ``mmkd compare``."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from mmkd.configs import config_path
from mmkd.engine.teachers import TeacherSettings
from mmkd.errors import InputError, first_few
from mmkd.evaluation.coco import evaluate_detections
from mmkd.evaluation.coco_files import read_annotations
from mmkd.evaluation.comparison import BASELINE, DISTILLED, TEACHER
from mmkd.extras import extra
from mmkd.runs.fingerprint import ImageFiles, image_names, scored_config
from mmkd.runs.recipe import Recipe, Trained
from mmkd.runs.record import TrainingRecord
from mmkd.runs.running import (
    Job,
    differences,
    fingerprint_of,
    run_all,
    stored_result,
    train_and_evaluate,
)
from mmkd.runs.trial import try_training
from mmkd.work_dirs.run_files import DETECTIONS, STARTED
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

    def trial(self, work_dir: Path) -> Recipe:
        """Of a run with the distillation, to see whether it begins."""


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
    config: str | Path | Mapping[str, Path],
    seeds: Sequence[int],
    out: str | Path,
    *,
    options: Sequence[str] = (),
    workers: int = 1,
) -> PairedRuns:
    """Trains a config with and without its distillation, from the same weights.

    ``out`` gets ``plain_seed<k>``, ``distilled_seed<k>`` and, where it is a detector of the same
    classes, ``teacher``. Finished runs are kept, and an interrupted one goes on from its last
    checkpoint. Nothing is written before the training has been tried for an iteration.

    Args:
        config: Config of the MM family with a DistillHook, a CocoMetric for its validation (or an
            Accuracy for its test) and training by epochs; or YAML file of ``mmkd yolo train``. One
            of mmkd's own goes by its name, ``mmkd::...``. Or several by the names of their runs,
            which differ in nothing but their distillation; they have the plain runs in common,
            and the teacher where it is the same.
        seeds: One plain and one distilled run each.
        out: Folder.
        options: ``key=value`` settings that replace the config's.
        workers: Trainings at a time, each on one thread if there are several.

    Raises:
        InputError: The config cannot be compared, ``out`` holds runs of another comparison, or the
            runs of a seed began from different weights.
        FileNotFoundError: No such config, or no such checkpoint of a teacher.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds: expected at least one, each once, got {list(seeds)}")
    if workers < 1:
        raise InputError(f"workers: expected 1 or more, got {workers}")
    named = config if isinstance(config, Mapping) else {DISTILLED: config}
    arms = {name: Path(config_path(str(file))) for name, file in named.items()}
    _check_names(arms)
    # Recipes know a run by its folder too.
    out = Path(out).resolve()
    with TemporaryDirectory(prefix="mmkd-compare-") as folder:
        pairs = {name: _read_pair(arms[name], options, Path(folder, name)) for name in arms}
        check_same_plain(arms, pairs, Path(folder))
        teacher = _teacher_recipe(list(pairs.values()), out / TEACHER)
        scored = [] if isinstance(teacher, str) else [_job(TEACHER, teacher)]
        _refuse_others([*_jobs(pairs, seeds, out), *scored])
        for name, pair in pairs.items():
            if not _is_finished(name, pair, seeds, out):
                try_training(arms[name], pair.trial(Path(folder, f"{name}_trial")))
    pairs = {name: _read_pair(arms[name], options, out) for name in arms}
    jobs = _jobs(pairs, seeds, out)
    best, notes = _score_teacher(_teacher_recipe(list(pairs.values()), out / TEACHER))
    results = run_all(jobs, workers)
    check_same_start(results)
    notes.append("Plain and distilled runs of a seed began from the same weights.")
    order = [BASELINE, *arms]
    ordered = sorted(results, key=lambda result: (order.index(result.name), result.seed))
    titles = ", ".join(dict.fromkeys(each.stem for each in arms.values()))
    title = f"{titles}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    return PairedRuns(title, [*ordered, *best], notes)


def _check_names(arms: Mapping[str, Path]) -> None:
    if not arms:
        raise InputError("expected a config with a distillation, got none")
    for name in arms:
        if name in (BASELINE, TEACHER) or not re.fullmatch(r"\w[\w.-]*", name):
            raise InputError(
                f"{name!r} cannot name distilled runs, which get folders of this name: give "
                f"NAME=CONFIG, a plain word other than {BASELINE} and {TEACHER}"
            )


def _run_dir(name: str, seed: int, out: Path) -> Path:
    return out / f"{name}_seed{seed}"


def _jobs(pairs: Mapping[str, Pair], seeds: Sequence[int], out: Path) -> list[Job]:
    # Distilled runs first: what is wrong with their teacher or terms shows at once.
    first = next(iter(pairs.values()))
    arms = [(name, pair, True) for name, pair in pairs.items()]
    return [
        _job(name, pair.recipe(is_distilled, seed, _run_dir(name, seed, out)))
        for seed in seeds
        for name, pair, is_distilled in (*arms, (BASELINE, first, False))
    ]


def _job(name: str, recipe: Recipe) -> Job:
    return Job(name, recipe, name, expected=fingerprint_of(recipe))


def _is_finished(name: str, pair: Pair, seeds: Sequence[int], out: Path) -> bool:
    recipes = [pair.recipe(True, seed, _run_dir(name, seed, out)) for seed in seeds]
    return all(stored_result(recipe) is not None for recipe in recipes)


def _read_pair(config: Path, options: Sequence[str], out: Path) -> Pair:
    if config.suffix not in (".yaml", ".yml"):
        from mmkd.runs.mmengine.pair import MMPair

        return MMPair.read(config, options)
    with extra("yolo", f"{config}, a YAML file and so one of `mmkd yolo train`,"):
        from mmkd.runs.ultralytics.pair import YOLOPair
    return YOLOPair.read(config, options, out / "annotations")


def _refuse_others(jobs: Sequence[Job]) -> None:
    """Nothing that a user trained is overwritten, or becomes a seed of something else."""
    found: dict[str, list[Path]] = {}
    for job in jobs:
        assert job.expected is not None
        work_dir = job.recipe.work_dir
        for each, ignored in [(work_dir, ()), *((s, ("seed",)) for s in _seeds_beside(work_dir))]:
            changes = first_few(differences(each, job.expected, ignored), "; ")
            if changes:
                found.setdefault(changes, []).append(each)
    if found:
        texts = [f"{', '.join(map(str, dirs))}: {changes}" for changes, dirs in found.items()]
        raise InputError(
            "runs of something else, neither overwritten nor added to: "
            f"{first_few(texts, '. ')}. Put it back, or choose another --out"
        )


def _seeds_beside(work_dir: Path) -> list[Path]:
    """The folders of a run's other seeds."""
    name = work_dir.name.rpartition("_seed")[0]
    folders = sorted(work_dir.parent.glob(f"{glob.escape(name)}_seed*"))
    of_runs = [each for each in folders if (each / STARTED).is_file()]
    return [each for each in of_runs if each != work_dir and re.search(r"_seed\d+$", each.name)]


def check_same_plain(arms: Mapping[str, Path], pairs: Mapping[str, Pair], folder: Path) -> None:
    """Makes sure that configs have their plain runs in common.

    Raises:
        InputError: They do not.
    """
    plain = {
        name: fingerprint_of(pair.recipe(False, 0, folder / f"{name}_plain"))
        for name, pair in pairs.items()
    }
    first, *others = arms
    for name in others:
        changes = plain[name].changes_since(plain[first])
        if changes:
            raise InputError(
                f"{arms[first]} and {arms[name]} are different trainings without their "
                f"distillation, so that they have no plain runs in common: from the one to the "
                f"other, {first_few(changes, '; ')}. Make them alike, or compare them apart"
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
        return dict(config=None if self.config is None else scored_config(self.config))

    def files(self) -> dict[str, Path | ImageFiles]:
        images = ImageFiles(self.images, image_names(self.annotations))
        return {"checkpoint": self.checkpoint, "annotations": self.annotations, "images": images}

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


def _teacher_recipe(pairs: Sequence[Pair], work_dir: Path) -> _TeacherRecipe | str:
    """How to score the teacher that all have in common, or why it cannot be."""
    found = [_own_teacher(pair, work_dir) for pair in pairs]
    return found[0] if found.count(found[0]) == len(found) else "the configs name different ones"


def _own_teacher(pair: Pair, work_dir: Path) -> _TeacherRecipe | str:
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
