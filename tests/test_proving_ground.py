"""The proving ground's cells and settings are those that its names say."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmkd.data.digits import make_digits
from mmkd.registry import MODELS
from mmkd.runs.fingerprint import Fingerprint
from mmkd.terms import DEFAULTS, parse_terms

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OTHERS = ("detection_methods", "step_timing", "study")


@pytest.fixture
def proving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import proving_arms
    import proving_cells

    yield proving_arms, proving_cells
    for name in ("proving_arms", "proving_cells", "proving_results", "method_arms", *OTHERS):
        sys.modules.pop(name, None)


def test_the_default_arm_is_the_default(proving: Any) -> None:
    arms, cells = proving
    arm = arms.arm_of(arms.DEFAULT, cells.CELLS["bccd_yolov5"])
    assert list(arm.terms.values()) == [DEFAULTS["neck"]]


@pytest.mark.parametrize(
    ("arm", "term"),
    [
        ("last-w3", dict(weight=3.0)),
        ("8-w0.5", dict(weight=0.5, stride=8)),
        ("neck-s0.3", dict(student="neck", teacher="neck", stride="all", weight=dict(share=0.3))),
        ("all-w1-pkd", dict(stride="all", weight=1.0, loss=dict(type="mmkd.PKDLoss"))),
        ("all-w1-end=0.8", dict(stride="all", weight=1.0, schedule=dict(end=10))),
        ("all-w1-ramp=0.5", dict(stride="all", weight=1.0, schedule=dict(ramp=6))),
        ("all-c0.5", dict(stride="all", weight=dict(type="mmkd.AgreeingShare", share=0.5))),
    ],
)
def test_settings_by_name(proving: Any, arm: str, term: dict) -> None:
    arms, cells = proving
    key = "neck" if arm.startswith("neck") else "backbone"
    cell = cells.CELLS["digits_faster_rcnn"]
    assert arms.arm_of(arm, cell).terms == {key: term}
    both = arms.arm_of(f"all-s0.1+{arm}", cell).terms
    assert both is not None and both[key] == term
    assert len(both) == (2 if key == "neck" else 1)


def test_methods_by_name(proving: Any) -> None:
    """Every one that serves a detector is understood, at its own weight and at a share."""
    import method_arms

    arms, cells = proving
    for cell in cells.CELLS.values():
        for name in method_arms.METHODS:
            if not method_arms.applies(name, cell):
                continue
            published = arms.arm_of(name, cell).terms
            shared = arms.arm_of(f"{name}-s0.25", cell).terms
            fixed = arms.arm_of(f"{name}-w3", cell).terms
            assert {term["weight"] for term in fixed.values()} == {3.0}
            parsed = parse_terms(published, ["teacher"])
            assert parsed and all(term.parts["weight"] > 0 for term in parsed)
            assert published.keys() == shared.keys()
            assert all(term["weight"] == dict(share=0.25) for term in shared.values())
        both = arms.arm_of("all-s0.3+cwd", cell).terms
        assert both == {**arms.arm_of("all-s0.3", cell).terms, **arms.arm_of("cwd", cell).terms}
        assert len(both) == 2
    serving = {
        name
        for name in method_arms.METHODS
        if method_arms.applies(name, cells.CELLS["neu_det_gfl"])
    }
    assert {"crosskd", "ld", "scored"} <= serving and not {"kd-rpn", "dkd-regions"} & serving


def test_a_cells_runs_differ_in_their_distillation_alone(proving: Any, tmp_path: Path) -> None:
    arms, cells = proving
    make_digits(tmp_path / "data/digits", layout="both", num_train=8, num_val=4)
    make = cells._SETS["digits"]
    cells._SETS["digits"] = lambda source, out: cells.DataSet(
        *((out / f"annotations/{split}.json", out / split) for split in ("train", "val")),
        out / "data.yaml",
    )
    study = cells.Study(tmp_path, tmp_path)
    try:
        for name in ("digits_faster_rcnn", "digits_yolov5"):
            cell = cells.CELLS[name]
            contents = []
            for arm in ("plain", arms.DEFAULT):
                recipe = cell.recipe(study, arms.arm_of(arm, cell), 1)
                assert recipe.seed == 1 and recipe.work_dir.name == f"{arm}_seed1"
                contents.append(recipe.content())
            plain, distilled = (Fingerprint.of(each, {}) for each in contents)
            changes = distilled.changes_since(plain)
            assert changes
            assert all(each.startswith(("custom_hooks", "teacher", "terms")) for each in changes)
    finally:
        cells._SETS["digits"] = make


def test_rules_beside_the_share(proving: Any) -> None:
    """They are named as the arms name them."""
    import weight_rules

    assert MODELS.get("mmkd.LossRatio") is weight_rules.LossRatio
    assert MODELS.get("mmkd.AgreeingShare") is weight_rules.AgreeingShare


def test_calls_with_fewer_seeds_leave_what_is_known(proving: Any) -> None:
    from proving_results import merged

    def cell(**arms: dict[int, float]) -> dict[str, Any]:
        made = {n: dict(seeds=list(a), mAP=dict(values=list(a.values()))) for n, a in arms.items()}
        return dict(title="cell", arms=made)

    known = cell(plain={0: 40.0, 1: 41.0, 2: 42.0}, fgd={0: 43.0})
    new = cell(plain={0: 40.0, 1: 41.0}, fgd={0: 43.5, 1: 44.0}, mgd={0: 41.5, 1: 41.0})
    found = merged(known, new)["arms"]
    assert found["plain"] == known["arms"]["plain"]
    assert found["fgd"] == new["arms"]["fgd"] and found["mgd"] == new["arms"]["mgd"]
    assert merged({}, new) == new
    with pytest.raises(ValueError, match=r"cell, plain: seeds \[1\] do not come to"):
        merged(known, cell(plain={0: 40.0, 1: 41.1}))


def test_methods_of_two_processors_are_compared_within_each(proving: Any, tmp_path: Path) -> None:
    import detection_methods

    def cell(**arms: tuple[dict[int, float], tuple[float, float]]) -> dict[str, Any]:
        made = {
            name.replace("_", "-").replace("-s5", "-s0.5"): dict(
                seeds=list(values),
                mAP=dict(values=list(values.values()), difference=dict(low=low, high=high)),
            )
            for name, (values, (low, high)) in arms.items()
        }
        return dict(title="cell", arms=made)

    none = (0.0, 0.0)
    first = cell(
        plain=({0: 40.0, 1: 41.0, 2: 45.0}, none),
        cwd_s5=({0: 42.0, 1: 44.0, 2: 46.0}, none),
        fgd_s5=({0: 43.0, 1: 43.5}, (1.0, 4.0)),
    )
    second = cell(
        plain=({1: 50.0, 2: 51.0}, none),
        cwd_s5=({1: 52.0, 2: 53.0}, none),
        fgd_s5=({1: 60.0, 2: 54.0}, (2.0, 9.0)),
        mgd=({1: 50.5}, none),
    )
    parts = [first, second]
    found = detection_methods.gains_of("fgd-s0.5", parts)
    # Seed 1 of the first file stands.
    assert found.over_plain == {0: 3.0, 1: 2.5, 2: 3.0}
    assert found.over_default == {0: 1.0, 1: -0.5, 2: 1.0}
    assert str(found) == "+2.8 (+3.0, +2.5, +3.0)"
    assert str(detection_methods.gains_of("fgd-s0.5", [first])) == "+2.8 (+1.0 to +4.0; +3.0, +2.5)"
    assert str(detection_methods.gains_of("mgd", parts)) == "+0.5 (one seed)"
    assert detection_methods.gains_of("ld", parts) is None
    [*_, row] = detection_methods.section(parts, None)
    assert row == "| mgd | +0.5 (one seed) |  |  |  | |  |"
