"""The methods of detectors' papers as arms of the proving ground: published weight, or a share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proving_cells import Cell

__all__ = ["METHODS", "applies", "method_of", "method_terms"]

_NECK = dict(student="neck", teacher="neck")
# Of a head's classification branch after one of two convolutions, as small heads have.
_CROSS = dict(
    classes=dict(
        student="bbox_head.cls_convs.0*",
        teacher="bbox_head.cls_convs.0*",
        stride="all",
        teacher_classifier=["bbox_head.cls_convs.1", "bbox_head.gfl_cls"],
        loss=dict(type="mmkd.CrossKDLoss", compare="classes"),
        weight=1.0,
    ),
    boxes=dict(
        student="bbox_head.reg_convs.0*",
        teacher="bbox_head.reg_convs.0*",
        stride="all",
        teacher_classifier=[
            "bbox_head.reg_convs.1",
            "bbox_head.gfl_reg",
            "bbox_head.scales.{level}",
        ],
        loss=dict(type="mmkd.CrossKDLoss", compare="bins"),
        weight=4.0,
    ),
)


def _maps(loss: str, weight: float, **settings: Any) -> dict[str, Any]:
    part = dict(type=f"mmkd.{loss}", **settings.pop("of_loss", {}))
    return dict(maps=dict(_NECK, stride="all", loss=part, weight=weight, **settings))


def _logits(name: str, loss: str, weight: float = 1.0, **of_loss: Any) -> dict[str, Any]:
    level = {} if name == "roi.classes" else dict(stride="all")
    part = dict(type=f"mmkd.{loss}", **of_loss)
    return dict(logits=dict(student=name, teacher=name, loss=part, weight=weight, **level))


def _mgd(cell: Cell) -> dict[str, Any]:
    if _is_two_stage(cell):
        return _maps("MGDLoss", 5e-7, of_loss=dict(masked=0.45))
    return _maps("MGDLoss", 2e-5, of_loss=dict(masked=0.65))


def _fgd(cell: Cell) -> dict[str, Any]:
    one_stage = dict(foreground=1e-3, background=5e-4, attention=5e-4, context=5e-6)
    return _maps("FGDLoss", 1.0, of_loss={} if _is_two_stage(cell) else one_stage)


def _is_two_stage(cell: Cell) -> bool:
    return "faster-rcnn" in cell.student


def _review(cell: Cell) -> dict[str, Any]:
    levels = 2 if cell.student.endswith("-small") else 1 if "one level" in cell.title else 3
    loss = dict(type="mmkd.ReviewKDLoss", inner=32)
    return dict(review=dict(_NECK, levels=list(range(levels)), loss=loss, weight=2.0))


_FGFI_PROJECTOR = dict(type="mmkd.ConvConnector", layout="3x3", norm=False)
_SCORED_PROJECTOR = dict(type="mmkd.MLPProjector", hidden_channels=None)
# By name: the terms at their published weights, of a cell.
METHODS: Mapping[str, Any] = {
    "pkd": lambda cell: _maps("PKDLoss", 6.0),
    "cwd": lambda cell: _maps("CWDLoss", 10.0),
    "at": lambda cell: _maps("ATLoss", 1000.0),
    "fitnet": lambda cell: _maps("MSELoss", 1.0, normalizer=dict(type="mmkd.IdentityNormalizer")),
    "mgd": _mgd,
    "fgd": _fgd,
    "fgfi": lambda cell: _maps("FGFILoss", 0.01, projector=_FGFI_PROJECTOR),
    "fbkd": lambda cell: _maps("FBKDLoss", 1.0),
    "reviewkd": _review,
    "scored": lambda cell: _maps("ScoreWeightedL2Loss", 6.0, projector=_SCORED_PROJECTOR),
    "kd-classes": lambda cell: _logits("head.classes", "BinaryKDLoss"),
    "ld": lambda cell: _logits("head.boxes", "LDLoss", 0.25),
    "crosskd": lambda cell: _CROSS,
    "kd-rpn": lambda cell: _logits("rpn.objectness", "BinaryKDLoss"),
    "kd-regions": lambda cell: _logits("roi.classes", "KDLoss", temperature=1.0),
    "dkd-regions": lambda cell: _logits(
        "roi.classes", "DKDLoss", of="regions", beta=0.25, temperature=1.0
    ),
}
_ONE_STAGE = ("scored", "kd-classes", "ld")
_TWO_STAGE = ("kd-rpn", "kd-regions", "dkd-regions")


# After a method's name: ``-s0.5``, a share; ``-j0.5``, one of all levels together; or ``-w3``, a
# fixed weight.
_WEIGHT = re.compile(r"-([sjw])([\d.]+)$")


def method_of(name: str) -> str | None:
    """The method that an arm's name names, at a weight of its own or not; None if it is no
    method's."""
    method = _WEIGHT.sub("", name)
    return method if method in METHODS else None


def applies(name: str, cell: Cell) -> bool:
    """Whether a method can serve a cell's detector."""
    if name in _TWO_STAGE:
        return _is_two_stage(cell)
    if name == "crosskd":
        return "gfl" in cell.student
    return name not in _ONE_STAGE or not _is_two_stage(cell)


def method_terms(name: str, cell: Cell) -> dict[str, Any]:
    """The terms of a method: at their published weights (``fgd``), each at a share (``fgd-s0.5``),
    all at one (``fgd-j0.5``), or each at a fixed weight (``cwd-w3``)."""
    terms = METHODS[_WEIGHT.sub("", name)](cell)
    if match := _WEIGHT.search(name):
        kind, value = match[1], float(match[2])
        rules = dict(s=dict(share=value), j=dict(type="mmkd.JointShare", share=value), w=value)
        weight = rules[kind]
        terms = {key: {**term, "weight": weight} for key, term in terms.items()}
    return terms
