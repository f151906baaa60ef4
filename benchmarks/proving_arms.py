"""The proving ground's arms: how the distilled runs of a cell are set."""

from __future__ import annotations

from typing import Any

from proving_cells import DISTILL_MODEL, Cell, Terms

from mmkd.evaluation.comparison import BASELINE, TEACHER

__all__ = ["DEFAULT", "TWICE", "terms_of"]

DEFAULT = "default"
# The plain student on twice its schedule.
TWICE = "plain-twice"

# Outputs of the backbone, and of the neck, from fine to coarse.
_LEVELS = {
    "digits_faster_rcnn": 1,
    "digits_yolov5": 2,
    "bccd_faster_rcnn": 3,
    "bccd_yolov5": 2,
    "neu_det_yolov5": 3,
    "neu_det_yolo11": 3,
    "neu_det_gfl": 3,
    "bccd_yolov5_pretrained": 3,
    "bccd_faster_rcnn_pretrained": 1,
}


def terms_of(arm: str, cell: Cell) -> Terms:
    """The terms of an arm: ``<what>-<weight>[-<part>...]``, such as ``all-s0.3`` or ``last-w1``."""
    if arm in (BASELINE, TEACHER, TWICE, DEFAULT):
        return None
    if arm == DISTILL_MODEL:
        return DISTILL_MODEL
    what, weight, *parts = arm.split("-")
    term: dict[str, Any] = {}
    term["weight"] = dict(share=float(weight[1:])) if weight[0] == "s" else float(weight[1:])
    count = _LEVELS[cell.name]
    if what in ("all", "neck"):
        term["level"] = list(range(count))
    elif what == "mid":
        term["level"] = max(-2, -count)
    if what == "neck":
        term["student"] = term["teacher"] = "neck"
    for part in parts:
        kind, _, value = part.partition("=")
        if part == "pkd":
            term["loss"] = dict(type="mmkd.PKDLoss")
        elif part == "cwd":
            term["loss"] = dict(type="mmkd.CWDLoss")
        elif part == "mse":
            term["loss"] = dict(type="mmkd.MSELoss")
        elif kind == "end":
            epochs = cell.epochs
            term["schedule"] = dict(end=round(float(value) * epochs))
        else:
            raise ValueError(part)
    return dict(distill=term)
