"""A comparison for a program and for a spreadsheet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from mmkd.evaluation.comparison import Comparison, GroupResult, Score
from mmkd.evaluation.intervals import Estimate

__all__ = ["as_csv", "as_json"]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything as plain values; what is undefined is None."""
    return {
        "annotations": str(comparison.annotations.file),
        "annotations_sha256": comparison.annotations.digest,
        "images": len(comparison.annotations.image_ids),
        "areas": {name: list(limits) for name, limits in comparison.settings.areas.items()},
        "max_detections": list(comparison.settings.max_detections),
        "baseline": comparison.baseline,
        "teacher": comparison.teacher,
        "resamples": comparison.resamples,
        "seed": comparison.seed,
        "runs": {group.name: _group_json(group) for group in comparison.groups},
    }


def _group_json(group: GroupResult) -> dict[str, Any]:
    return {
        "role": group.role,
        "detections": [
            dict(file=str(each.detections.file), ids=each.detections.convention)
            for each in group.evaluations
        ],
        "parameters": group.parameters,
        "step_seconds": group.step_seconds,
        "metrics": _entries(group.metrics, group.differences),
        "classes": _entries(group.classes, group.class_differences),
        "lead_closed": group.lead_closed and _estimate_json(group.lead_closed),
        "errors": {
            kind: dict(count=count, ap50=_known(cost))
            for kind, (count, cost) in group.errors.items()
        },
    }


def _entries(scores: Mapping[str, Score], differences: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        name: {
            "mean": _known(score.mean),
            "spread": _known(score.spread),
            "values": [_known(value) for value in score.values],
            "difference": _estimate_json(differences[name]) if differences else None,
        }
        for name, score in scores.items()
    }


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    return {
        **{key: _known(getattr(estimate, key)) for key in ("value", "low", "high")},
        "interval_over": estimate.over if estimate.has_interval else None,
        "seeds": [_known(each) for each in estimate.seeds],
        "seeds_disagree": estimate.seeds_disagree,
    }


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def as_csv(comparison: Comparison) -> str:
    """A line a run and figure: percent, points for differences, empty where undefined."""
    stream = io.StringIO()
    columns = "run role kind name mean spread difference difference_low difference_high"
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns.split())
    for group in comparison.groups:
        for kind, scores, differences in (
            ("metric", group.metrics, group.differences),
            ("class", group.classes, group.class_differences),
        ):
            for name, score in scores.items():
                change = differences.get(name)
                own = [change.value, change.low, change.high] if change else [None] * 3
                row = [_known(value) for value in (score.mean, score.spread, *own)]
                writer.writerow([group.name, group.role, kind, name, *row])
        for error, (count, cost) in group.errors.items():
            writer.writerow([group.name, group.role, "error count", error, count])
            writer.writerow([group.name, group.role, "error AP50", error, _known(cost)])
    return stream.getvalue()
