"""The proving ground's arms: how the distilled runs of a cell are set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from method_arms import method_of, method_terms
from proving_cells import DISTILL_MODEL, PLAIN_ARM, Arm, Cell

from mmkd.evaluation.comparison import BASELINE
from mmkd.terms import DEFAULTS

__all__ = ["BACKBONE", "DEFAULT", "TWICE", "arm_of"]

# mmkd's own, spelled out, and what it was before.
DEFAULT = f"cwd-s{DEFAULTS['neck']['weight']['share']:g}"
BACKBONE = f"all-s{DEFAULTS['backbone']['weight']['share']:g}"
# At an arm's end: on twice its schedule.
TWICE = "-twice"

_LOSSES = dict(pkd="mmkd.PKDLoss", cwd="mmkd.CWDLoss", mse="mmkd.MSELoss")


def arm_of(name: str, cell: Cell) -> Arm:
    """What a name says: ``plain``, ``distill_model``, a method of :mod:`method_arms`, or a
    setting of mmkd's; each with ``-twice`` at its end, on twice the schedule.

    A setting: ``<what>-<weight>[-<part>...]``, such as ``all-s0.3`` or ``last-w1``. What: ``all``
    (every output of the backbone from stride 8 up), ``last``, ``neck`` (every output of it), ``8``
    (that of a stride). Weight: ``w`` fixed, ``s`` a gradient's share, ``c`` a share without the
    part against the task, ``r`` a ratio of losses. Parts: another loss (``pkd``, ``cwd``, ``mse``),
    ``end=0.8`` and ``ramp=0.1`` of the epochs. Several by a plus, ``all-s0.3+ld``: the terms of
    all.
    """
    if name.endswith(TWICE):
        return replace(arm_of(name.removesuffix(TWICE), cell), name=name, longer=2.0)
    if name == BASELINE:
        return PLAIN_ARM
    if name == DISTILL_MODEL:
        return Arm(name, "distill_model")
    terms: dict[str, Any] = {}
    for part in name.split("+"):
        terms |= method_terms(part, cell) if method_of(part) else _setting(part, cell)
    return Arm(name, terms)


def _setting(name: str, cell: Cell) -> dict[str, Any]:
    what, weight, *parts = name.split("-")
    term: dict[str, Any] = dict(weight=_weight(weight))
    if what != "last":
        term["stride"] = int(what) if what.isdigit() else "all"
    if what == "neck":
        term |= dict(student="neck", teacher="neck")
    for part in parts:
        kind, _, value = part.partition("=")
        if kind in ("end", "ramp"):
            schedule = term.setdefault("schedule", {})
            schedule[kind] = round(float(value) * cell.epochs)
        else:
            term["loss"] = dict(type=_LOSSES[kind])
    return {"neck" if what == "neck" else "backbone": term}


def _weight(text: str) -> float | dict[str, Any]:
    kind, value = text[0], float(text[1:])
    rules: dict[str, Any] = dict(
        w=value,
        s=dict(share=value),
        c=dict(type="mmkd.AgreeingShare", share=value),
        r=dict(type="mmkd.LossRatio", ratio=value),
    )
    return rules[kind]
