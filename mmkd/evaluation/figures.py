"""Pictures of a comparison: detections side by side, learning curves, the gap closed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

__all__ = ["draw_curves", "draw_detections", "draw_gap", "read_curves", "read_scalars"]

# Okabe and Ito's palette: told apart by colour-blind readers, and by lightness in grey.
COLORS = {"plain": "#D55E00", "distilled": "#0072B2", "teacher": "#000000", "truth": "#009E73"}
LABELS = {
    "plain": "student, plain",
    "distilled": "student, distilled",
    "teacher": "teacher",
    "truth": "ground truth",
}
MARKERS = {"plain": "o", "distilled": "s", "teacher": "^"}


def read_scalars(work_dir: str | Path) -> list[dict[str, Any]]:
    """The log lines of a work dir's newest run (``<timestamp>/vis_data/scalars.json``)."""
    files = sorted(Path(work_dir).glob("*/vis_data/scalars.json"))
    return [json.loads(line) for file in files[-1:] for line in file.read_text().splitlines()]


@dataclass(frozen=True)
class Curves:
    """What a work dir logged: validation mAP in percent by epoch, and the training loss."""

    scores: dict[int, float]
    losses: dict[int, float]
    loss_step: str


def read_curves(work_dir: str | Path) -> Curves:
    """The curves of a run of MMEngine's (``scalars.json``) or Ultralytics' (``results.csv``).

    Distillation terms are left out of the loss, so that the curves of several runs compare.
    """
    table = Path(work_dir) / "results.csv"
    if not table.is_file():
        lines = read_scalars(work_dir)
        return Curves(
            {x["step"]: 100 * x["coco/bbox_mAP"] for x in lines if "coco/bbox_mAP" in x},
            {x["step"]: _task_loss(x) for x in lines if "loss" in x},
            "iteration",
        )
    with table.open(newline="") as stream:
        rows = [{k.strip(): float(v) for k, v in row.items()} for row in csv.DictReader(stream)]
    own = [k for k in rows[0] if k.startswith("train/") and not k.startswith("train/kd_")]
    return Curves(
        {int(row["epoch"]): 100 * row["metrics/mAP50-95(B)"] for row in rows},
        {int(row["epoch"]): sum(row[key] for key in own) for row in rows},
        "epoch",
    )


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
    truth = json.loads(Path(annotations).read_text())
    names = {c["id"]: c["name"] for c in truth["categories"]}
    rows: dict[str, dict[int, list[dict]]] = {"truth": _by_image(truth["annotations"])}
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
            _draw_boxes(axis, boxes.get(image["id"], []), names, COLORS[model])
        axes[row][0].set_ylabel(LABELS[model], fontsize=11, color=COLORS[model])
    figure.suptitle(f"Detections of score {min_score} and above on the first validation images")
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


def draw_curves(runs: Mapping[str, Sequence[str | Path]], out: str | Path) -> None:
    """Draws validation mAP and the student's own training loss over the epochs.

    Args:
        runs: Work dirs by model, one a seed.
        out: Picture to write.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for model, work_dirs in runs.items():
        for index, work_dir in enumerate(work_dirs):
            curves = read_curves(work_dir)
            style = dict(color=COLORS[model], label=LABELS[model] if index == 0 else None)
            left.plot(*_sorted(curves.scores), marker=MARKERS[model], **style)
            right.plot(*_sorted(curves.losses), linewidth=1.5, **style)
            right.set_xlabel(curves.loss_step)
    left.set(xlabel="epoch", ylabel="validation mAP (0.50:0.95), %", ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.set(ylabel="detection loss (without distillation)", ylim=(0, None))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    left.legend()
    _save(figure, out)


def _sorted(points: Mapping[int, float]) -> tuple[list[int], list[float]]:
    steps = sorted(points)
    return steps, [points[step] for step in steps]


def _task_loss(line: Mapping[str, float]) -> float:
    return line["loss"] - sum(v for k, v in line.items() if k.startswith("loss_distill_"))


def draw_gap(scores: Mapping[str, Sequence[float]], out: str | Path) -> None:
    """Draws mAP of plain student, distilled student and teacher, and the share of the gap closed.

    Args:
        scores: mAP in percent by model, one a seed.
        out: Picture to write.
    """
    means = {model: float(np.mean(values)) for model, values in scores.items()}
    gap, gain = means["teacher"] - means["plain"], means["distilled"] - means["plain"]
    figure, axis = plt.subplots(figsize=(8, 2.8), layout="constrained")
    for row, (model, values) in enumerate(scores.items()):
        axis.barh(row, means[model], color=COLORS[model], alpha=0.85)
        if len(values) > 1:
            axis.plot(values, [row] * len(values), "|", color="#888888", markersize=16)
        axis.text(max(values) + 0.8, row, f"{means[model]:.1f}", va="center", fontsize=11)
    axis.set_yticks(range(len(scores)), [LABELS[model] for model in scores])
    axis.invert_yaxis()
    axis.set(xlabel="mAP (0.50:0.95), %", xlim=(0, max(map(max, scores.values())) * 1.12))
    axis.spines[["top", "right"]].set_visible(False)
    closed = f", {gain / gap:.0%} of the gap to the teacher" if gap > 0 else ""
    axis.set_title(f"Distillation adds {gain:+.1f} mAP{closed}", fontsize=12)
    _save(figure, out)


def _save(figure: Any, out: str | Path) -> None:
    figure.savefig(out, dpi=90)
    plt.close(figure)
