"""Plain and distilled from the same start, several seeds, side by side: ``mmkd compare``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from rich.console import Console
from rich.markdown import Markdown

from mmkd.errors import InputError
from mmkd.evaluation.coco import evaluate_detections
from mmkd.evaluation.coco_files import read_annotations, read_detections
from mmkd.evaluation.comparison import BASELINE, TEACHER, Comparison, Estimate, Run, compare_runs
from mmkd.report.text_tables import as_json, conclusions, markdown_tables
from mmkd.runs.environment import describe_environment
from mmkd.runs.recipe import Recipe, Trained
from mmkd.runs.record import TrainingRecord
from mmkd.runs.running import (
    Job,
    RunResult,
    holds_another_run,
    is_finished,
    run_all,
    spread,
    train_and_evaluate,
)
from mmkd.work_dirs.run_files import DETECTIONS

__all__ = [
    "Pair",
    "check_out",
    "compare_config",
    "compare_results",
    "score_table",
    "write_results",
]

DISTILLED = "distilled"
# What a comparison writes next to its runs.
TABLES, RESULTS, REPORT = "results.md", "results.json", "report.html"


class Pair(Protocol):
    """One config of a distillation, of any trainer."""

    @property
    def teachers(self) -> Mapping[str, Any]:
        """Their settings by name (:class:`mmkd.engine.teachers.TeacherSettings`)."""

    @property
    def scored_on(self) -> tuple[Path, Path] | None:
        """COCO annotation file and folder of the images; None where no boxes are scored."""

    def recipe(self, is_distilled: bool, seed: int, work_dir: Path) -> Recipe:
        """Of a run with the distillation, or of one without it that has all else in common."""


def compare_config(
    config: str | Path,
    seeds: Sequence[int],
    out: str | Path,
    *,
    options: Sequence[str] = (),
    workers: int = 1,
    resamples: int = 1000,
) -> Path:
    """Trains a config with and without its distillation, and writes what came out.

    ``out`` gets ``plain_seed<k>``, ``distilled_seed<k>`` and, where it is a detector of the same
    classes, ``teacher``; ``results.md``, ``results.json`` and ``report.html``. Finished runs are
    kept, and an interrupted one goes on from its last checkpoint.

    Args:
        config: Config of the MM family with a DistillHook, a CocoMetric for its validation (or an
            Accuracy for its test) and training by epochs; or YAML file of ``mmkd yolo train``.
        seeds: One plain and one distilled run each.
        out: Folder.
        options: ``key=value`` settings that replace the config's.
        workers: Trainings at a time, each on one thread if there are several.
        resamples: Of the bootstrap; 0 leaves the intervals out.

    Returns:
        The report.

    Raises:
        InputError: The config cannot be compared, ``out`` holds runs of another comparison or
            files of something else, or the two runs of a seed began from different weights.
        FileNotFoundError: No such config, or no such checkpoint of a teacher.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds: expected at least one, each once, got {list(seeds)}")
    if workers < 1:
        raise InputError(f"workers: expected 1 or more, got {workers}")
    # Recipes know a run by its folder too.
    config, out = Path(config), Path(out).resolve()
    check_out(out)
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
    return write_results([*ordered, *best], out, title=title, notes=notes, resamples=resamples)


def _read_pair(config: Path, options: Sequence[str], out: Path) -> Pair:
    if config.suffix not in (".yaml", ".yml"):
        from mmkd.runs.mmengine.pair import MMPair

        return MMPair.read(config, options)
    try:
        from mmkd.runs.ultralytics.pair import YOLOPair
    except ImportError as error:
        raise InputError(
            f"{config}: a YAML file is one of `mmkd yolo train`, which needs Ultralytics: "
            f"pip install 'mmkd[yolo]' ({error})"
        ) from error
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
        from mmengine.hub import get_config

        file = self.work_dir / "config.py"
        get_config(self.config).dump(file)
        return file


def _teacher_recipe(pair: Pair, work_dir: Path) -> _TeacherRecipe | str:
    """How to score the teacher, or why it cannot be."""
    if pair.scored_on is None:
        return "the config trains no detector"
    if len(pair.teachers) > 1:
        return f"there are several ({', '.join(pair.teachers)})"
    [teacher] = pair.teachers.values()
    # Of the MM family, or of Ultralytics.
    source = getattr(teacher, "checkpoint", None) or getattr(teacher, "source", None)
    if not isinstance(source, str | Path) or not Path(source).is_file():
        return "it is no checkpoint file"
    config = getattr(teacher, "config", None)
    if hasattr(teacher, "checkpoint") and config is None:
        return "it comes without a config file"
    return _TeacherRecipe(Path(source).resolve(), config, *pair.scored_on, work_dir)


def _score_teacher(teacher: _TeacherRecipe | str) -> tuple[list[RunResult], list[str]]:
    """Its result, or a note that says why there is none."""
    reason = teacher
    if isinstance(teacher, _TeacherRecipe):
        try:
            return [train_and_evaluate(teacher, TEACHER)], []
        except InputError as error:
            reason = str(error)
    return [], [f"The teacher was not scored: {str(reason).rstrip('.')}."]


# Results ------------------------------------------------------------------------------------


def compare_results(results: Sequence[RunResult], *, resamples: int = 1000) -> Comparison | None:
    """Compares the detections of runs with those named ``plain``.

    Args:
        results: Of detectors, scored on the same images.
        resamples: Of the bootstrap; 0 leaves the intervals out.

    Returns:
        None where annotations are unknown: of classifiers, or of runs of earlier versions.

    Raises:
        InputError: Runs on different annotations.
    """
    files = list(dict.fromkeys(result.annotations for result in results))
    if None in files:
        return None
    if len(files) > 1:
        raise InputError(f"expected runs scored on the same annotation file, found {files}")
    truth = read_annotations(str(files[0]))
    runs = [
        Run(
            result.name,
            read_detections(result.detections, truth),
            result.parameters,
            result.training_seconds / result.iterations if result.iterations else None,
        )
        for result in results
    ]
    return compare_runs(truth, runs, resamples=resamples)


def score_table(results: Sequence[RunResult], comparison: Comparison | None = None) -> list[str]:
    """Lines of a Markdown table, one a name in the order of appearance.

    Args:
        results: With the same metrics. The first metric is compared with that of the runs named
            ``plain``, if there are any.
        comparison: Of the same runs, for the intervals and the share of the teacher's lead.
    """
    by_name: dict[str, list[RunResult]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    metrics = list(results[0].scores)
    has_lead = comparison is not None and any(g.lead_closed for g in comparison.groups)
    headings = ["run", "seeds", *metrics]
    headings += [f"{metrics[0]} over {BASELINE}"] * (BASELINE in by_name)
    headings += ["lead closed"] * has_lead
    headings += ["parameters", "training, s"]
    rows = [headings, ["---"] * len(headings)]
    for name, runs in by_name.items():
        row = [name, str(len(runs))]
        row += [spread([run.scores[metric] for run in runs]) for metric in metrics]
        if BASELINE in by_name:
            row.append(_difference(metrics[0], runs, by_name[BASELINE], comparison))
        if has_lead:
            closed = comparison and comparison.group(name).lead_closed
            row.append(_with_interval(closed, ".0%") if closed else "")
        row.append(f"{runs[0].parameters / 1e6:.2f} M")
        trained = any(run.training_seconds for run in runs)
        row.append(spread([run.training_seconds for run in runs]) if trained else "")
        rows.append(row)
    return [f"| {' | '.join(row)} |" for row in rows]


def _difference(
    metric: str,
    runs: Sequence[RunResult],
    plain: Sequence[RunResult],
    comparison: Comparison | None,
) -> str:
    if runs[0].name == BASELINE:
        return ""
    if comparison is not None:
        return _with_interval(comparison.group(runs[0].name).differences[metric], "+.1f")
    own, base = (fmean(run.scores[metric] for run in each) for each in (runs, plain))
    return f"{own - base:+.1f}"


def _with_interval(estimate: Estimate, form: str) -> str:
    ends = [estimate.low, estimate.high]
    interval = "" if math.isnan(ends[0]) else f" [{', '.join(format(end, form) for end in ends)}]"
    return f"{estimate.value:{form}}{interval}"


def check_out(out: Path, pictures: Sequence[str] = ()) -> None:
    """Makes sure that :func:`write_results` will replace only what it has written before.

    Args:
        out: Its folder.
        pictures: Names of files that are written there too.

    Raises:
        InputError: It would replace something else.
    """
    from mmkd.report.page import check_out as check_report

    check_report(out / REPORT)
    found = [out / name for name in (TABLES, RESULTS, *pictures) if (out / name).exists()]
    # They are written after the runs next to them.
    if found and not any(map(is_finished, out.iterdir())):
        raise InputError(
            f"{', '.join(map(str, found))}: not of a comparison of mmkd's, whose runs would lie "
            "in the same folder, and not overwritten: choose another folder, or move it away"
        )


def write_results(
    results: Sequence[RunResult],
    out: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    resamples: int = 1000,
) -> Path:
    """Writes ``results.md``, ``results.json`` and ``report.html``; prints the main table.

    Args:
        results: Finished runs; with those named ``plain``, the others are compared.
        out: Folder.
        title: Of the results.
        notes: Sentences below the table.
        resamples: Of the bootstrap; 0 leaves the intervals out.

    Returns:
        The report.
    """
    from mmkd.report import write_report

    comparison = compare_results(results, resamples=resamples)
    said = [*(conclusions(comparison) if comparison else []), *notes]
    summary = [f"# {title}", "", *score_table(results, comparison), "", *_list(said)]
    checkpoints = [f"{r.name}, seed {r.seed}: {r.checkpoint}" for r in results]
    environment = [f"{key}: {value}" for key, value in describe_environment().items()]
    details = markdown_tables(comparison).splitlines() if comparison else []
    lines = [*summary, "", *details, "", *_list(checkpoints), "", *_list(environment), ""]
    out.mkdir(parents=True, exist_ok=True)
    (out / TABLES).write_text("\n".join(lines), encoding="utf-8")
    content = dict(
        runs=[asdict(result) for result in results], comparison=comparison and as_json(comparison)
    )
    (out / RESULTS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    console.print(Markdown("\n".join(summary)))
    work_dirs = [Path(result.work_dir) for result in results]
    return write_report(work_dirs, out / REPORT, resamples=resamples)


def _list(sentences: Sequence[str]) -> list[str]:
    return [f"- {sentence}" for sentence in sentences]
