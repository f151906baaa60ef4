"""Pictures of the demo: detections side by side, and learning curves."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from mmkd.evaluation.comparison import BASELINE, DISTILLED, TEACHER, Role
from mmkd.output_files import written_whole
from mmkd.report.figures.panels import tidy
from mmkd.report.style import TRUTH_COLOR, run_label, run_styles
from mmkd.work_dirs import MAP_CURVES, TASK_LOSS, read_work_dir

__all__ = ["draw_curves", "draw_detections", "part_labels"]

_TRUTH = "ground truth"
_ROLES: dict[str, Role] = {BASELINE: "baseline", DISTILLED: "run", TEACHER: "teacher"}


def draw_detections(
    annotations: str | Path,
    images: str | Path,
    detections: Mapping[str, str | Path],
    out: str | Path,
    *,
    num_images: int = 6,
    min_score: float = 0.3,
) -> None:
    """Draws the truth and each model's detections, one column an image.

    Args:
        annotations: COCO annotation file.
        images: Folder of its images.
        detections: Detection file by model, in the order of the rows.
        out: Picture to write.
        num_images: Columns: the first images of the set, so that none is chosen for its result.
        min_score: Detections of a lower score are left out.
    """
    colors = {name: style.color for name, style in run_styles(_ROLES).items()}
    colors[_TRUTH] = TRUTH_COLOR
    truth = json.loads(Path(annotations).read_text())
    names = {c["id"]: c["name"] for c in truth["categories"]}
    rows: dict[str, dict[int, list[dict]]] = {_TRUTH: _by_image(truth["annotations"])}
    for model, file in detections.items():
        kept = [d for d in json.loads(Path(file).read_text()) if d["score"] >= min_score]
        rows[model] = _by_image(kept)
    chosen = truth["images"][:num_images]
    figure, axes = plt.subplots(
        len(rows),
        len(chosen),
        figsize=(2.1 * len(chosen) + 0.4, 2.1 * len(rows) + 0.3),
        squeeze=False,
        layout="constrained",
    )
    for row, (model, boxes) in enumerate(rows.items()):
        for column, image in enumerate(chosen):
            axis = axes[row][column]
            axis.imshow(plt.imread(Path(images) / image["file_name"]))
            axis.set(xticks=[], yticks=[])
            _draw_boxes(axis, boxes.get(image["id"], []), names, colors[model])
        axes[row][0].set_ylabel(run_label(model), fontsize=11, color=colors[model])
    figure.suptitle(f"Detections of score {min_score} and above on the first validation images")
    figure.draw_without_rendering()
    # What follows depends on the places that the axes have now.
    figure.set_layout_engine("none")
    for axis in axes.flat:
        part_labels(axis)
    _save(figure, out)


def _by_image(entries: Sequence[dict]) -> dict[int, list[dict]]:
    grouped: dict[int, list[dict]] = {}
    for entry in entries:
        grouped.setdefault(entry["image_id"], []).append(entry)
    return grouped


def _draw_boxes(axis: Axes, entries: Sequence[dict], names: dict[int, str], color: str) -> None:
    for entry in entries:
        x, y, width, height = entry["bbox"]
        axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=2))
        axis.text(
            x,
            y,
            names[entry["category_id"]],
            fontsize=9,
            color="white",
            verticalalignment="bottom",
            bbox=dict(facecolor=color, edgecolor="none", pad=1),
        )


def part_labels(axis: Axes) -> None:
    """Moves labels to corners of their boxes where none lies on another.

    A label that is in the way of earlier ones at every corner is hidden.

    Args:
        axis: Laid out, with a text for each rectangle, in one order; y grows downward.
    """
    pad = 2 * axis.figure.dpi / 72
    taken: list[Bbox] = []
    boxes = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    for label, box in zip(axis.texts, boxes, strict=True):
        (left, top), (right, bottom) = box.get_bbox().min, box.get_bbox().max
        corners = itertools.product(
            ((top, "bottom"), (bottom, "top"), (top, "top"), (bottom, "bottom")),
            ((left, "left"), (right, "right")),
        )
        for (y, vertical), (x, horizontal) in corners:
            label.set(x=x, y=y, va=vertical, ha=horizontal)
            place = label.get_window_extent().padded(pad)
            if place.count_overlaps(taken) == 0:
                taken.append(place)
                break
        else:
            label.set_visible(False)


def draw_curves(runs: Mapping[str, Sequence[str | Path]], out: str | Path) -> None:
    """Draws validation mAP and the student's own training loss over the epochs.

    Args:
        runs: Work dirs by model, one a seed.
        out: Picture to write.

    Raises:
        InputError: See :func:`mmkd.work_dirs.read_work_dir`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    styles = run_styles(_ROLES)
    for model, work_dirs in runs.items():
        for index, work_dir in enumerate(work_dirs):
            looks = dict(color=styles[model].color, label=run_label(model) if index == 0 else None)
            for curve in read_work_dir(work_dir).curves:
                if curve.name in MAP_CURVES:
                    marker = styles[model].marker
                    left.plot(*zip(*curve.points, strict=True), marker=marker, **looks)
                elif curve.name == TASK_LOSS:
                    right.plot(*zip(*curve.points, strict=True), linewidth=1.5, **looks)
                    right.set_xlabel(curve.step)
    left.set(xlabel="epoch", ylabel="validation mAP (0.50:0.95), %", ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(ylabel="detection loss (without distillation)", ylim=(0, None))
    for axis in (left, right):
        tidy(axis)
    left.legend()
    _save(figure, out)


def _save(figure: Any, out: str | Path) -> None:
    with written_whole(Path(out)) as unfinished:
        figure.savefig(unfinished, dpi=90)
    plt.close(figure)
