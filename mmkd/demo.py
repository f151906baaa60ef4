"""The main job in small: a teacher, a student, and the same student distilled."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mmkd.configs import config_file
from mmkd.data.digits import make_digits
from mmkd.engine.mmengine.config_files import open_config
from mmkd.evaluation.comparison import Comparison
from mmkd.report.figures.canvas import write_picture
from mmkd.report.figures.demo import draw_curves, draw_detections
from mmkd.report.figures.summaries import score_plot
from mmkd.report.results import check_out, compare_results, write_results
from mmkd.report.sentences import gain_title
from mmkd.report.style import group_styles, run_label
from mmkd.runs.mmengine.recipes import MMRecipe
from mmkd.runs.recipe import Recipe
from mmkd.runs.running import Job, run_all
from mmkd.work_dirs.run_result import RunResult

__all__ = ["digits_config", "run_demo"]

FRAMEWORKS = ("faster_rcnn", "yolov5")
CONFIGS = {
    "faster_rcnn": {
        "teacher": "detection/digits/faster-rcnn_r18-w16_digits.py",
        "plain": "detection/digits/faster-rcnn_r18-w8_digits.py",
        "distilled": "detection/digits/faster-rcnn_r18-w8_digits_distill.py",
    },
    "yolov5": {
        "teacher": "yolo/digits/yolov5m-small_digits.yaml",
        "plain": "yolo/digits/yolov5n-small_digits.yaml",
        "distilled": "yolo/digits/yolov5n-small_digits_distill.yaml",
    },
}
ROLES = ("plain", "distilled", "teacher")
# Time of an iteration relative to the plain student's, for the estimate of the time left.
COSTS = {
    "faster_rcnn": {"teacher": 1.7, "plain": 1.0, "distilled": 1.3},
    "yolov5": {"teacher": 1.9, "plain": 1.0, "distilled": 1.4},
}
NUM_TRAIN, NUM_VAL = 1000, 200
PICTURES = ("detections.png", "curves.png", "gap.png")


def run_demo(out: str | Path, *, seeds: int = 1, framework: str = "faster_rcnn") -> list[RunResult]:
    """Trains a teacher once, then a plain and a distilled student per seed; shows all three.

    Finished runs are kept: the same call continues where it was stopped, and only a run whose
    config, annotations or teacher changed is trained again.

    Args:
        out: Folder for data, runs, pictures, ``results.md``, ``results.json`` and
            ``report.html``.
        seeds: Number of seeds, from 0 up.
        framework: ``'faster_rcnn'`` (MMDetection) or ``'yolov5'`` (Ultralytics).

    Raises:
        ValueError: ``seeds`` is not positive, or an unknown framework.
        FileExistsError: ``out`` holds another data set.
        InputError: ``out`` holds files of something else where runs or results would go.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be 1 or more, got {seeds}")
    if framework not in FRAMEWORKS:
        raise ValueError(f"framework must be one of {FRAMEWORKS}, got {framework!r}")
    out = Path(out)
    check_out(out, PICTURES)
    is_yolo = framework == "yolov5"
    data = make_digits(
        out / "data", num_train=NUM_TRAIN, num_val=NUM_VAL, layout="both" if is_yolo else "coco"
    )
    recipe_of = _yolov5_recipe if is_yolo else _faster_rcnn_recipe
    runs = [("teacher", 0), *((role, seed) for seed in range(seeds) for role in ROLES[:2])]
    results = run_all(
        [
            Job(role, recipe_of(role, seed, data, out), run_label(role), COSTS[framework][role])
            for role, seed in runs
        ]
    )
    compared = compare_results(sorted(results, key=lambda result: ROLES.index(result.name)))
    _draw(results, compared.comparison, data, out)
    title = f"Digits, {framework}: scores of the validation set"
    report = write_results(compared, out, title=title)
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    console.print(f"pictures, results.md and results.json: {out}")
    console.print(f"report, for a browser: {report}")
    return results


def _work_dir(role: str, seed: int, out: Path) -> Path:
    return out / (role if role == "teacher" else f"{role}_seed{seed}")


def _faster_rcnn_recipe(role: str, seed: int, data: Path, out: Path) -> Recipe:
    config = digits_config(role, seed, data, out)
    if role == "distilled":
        teacher = MMRecipe(digits_config("teacher", 0, data, out))
        config.custom_hooks[0].teacher.checkpoint = teacher.checkpoint
    return MMRecipe(config)


def _yolov5_recipe(role: str, seed: int, data: Path, out: Path) -> Recipe:
    from mmkd.engine.ultralytics.train import read_settings
    from mmkd.runs.ultralytics.recipe import YOLORecipe

    settings = read_settings(config_file(CONFIGS["yolov5"][role]))
    settings |= dict(data=str((data / "data.yaml").resolve()), seed=seed)
    if role == "distilled":
        settings["teacher"] = str(_work_dir("teacher", 0, out) / "weights" / "last.pt")
    return YOLORecipe(
        settings,
        _work_dir(role, seed, out),
        data / "annotations/train.json",
        data / "train",
        data / "annotations/val.json",
        data / "val",
    )


def digits_config(role: str, seed: int, data: Path, out: Path) -> Any:
    """The config of one of Faster R-CNN's runs: ``'teacher'``, ``'plain'`` or ``'distilled'``."""
    config = open_config(config_file(CONFIGS["faster_rcnn"][role]))
    config.work_dir = str(_work_dir(role, seed, out))
    config.randomness = dict(seed=seed)
    for split in ("train", "val", "test"):
        config[f"{split}_dataloader"].dataset.data_root = f"{data}/"
    for evaluator in (config.val_evaluator, config.test_evaluator):
        evaluator.ann_file = str(data / "annotations/val.json")
    return config


def _by_role(results: list[RunResult]) -> dict[str, list[RunResult]]:
    return {role: [r for r in results if r.name == role] for role in ROLES}


def _draw(results: list[RunResult], comparison: Comparison | None, data: Path, out: Path) -> None:
    runs = _by_role(results)
    boxes, curves, gap = (out / name for name in PICTURES)
    draw_detections(
        data / "annotations/val.json",
        data / "val",
        {role: of_role[0].detections for role, of_role in runs.items()},
        boxes,
    )
    draw_curves({role: [r.work_dir for r in runs[role]] for role in ROLES}, curves)
    if comparison is not None:
        plot = score_plot(comparison, group_styles(comparison.groups), run_label)
        if plot is not None:
            write_picture(replace(plot, title=gain_title(comparison)), gap)
