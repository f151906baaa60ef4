"""COCO's figures: known cases, pycocotools itself, and the faster backend (trainers: test_runs)."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from helpers import scenes
from mmkd.errors import InputError
from mmkd.evaluation import evaluate_detections
from mmkd.evaluation.coco import IOUS, RECALLS, CocoSettings, Evaluation, evaluate
from mmkd.evaluation.coco_files import read_annotations, read_detections

BOX = [10.0, 10.0, 20.0, 20.0]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    file = tmp_path / "truth.json"
    truth = dict(
        images=[dict(id=i, width=64, height=64, file_name=f"{i}.png") for i in (1, 2)],
        annotations=[
            dict(id=i, image_id=i, category_id=1, bbox=BOX, area=400.0, iscrowd=0) for i in (1, 2)
        ],
        categories=[dict(id=1, name="a")],
    )
    file.write_text(json.dumps(truth))
    return file


def detections(tmp_path: Path, *boxes: tuple[int, list[float], float]) -> Path:
    file = tmp_path / "found.json"
    file.write_text(
        json.dumps([dict(image_id=i, category_id=1, bbox=b, score=s) for i, b, s in boxes])
    )
    return file


def test_perfect_detections_score_100(annotations: Path, tmp_path: Path) -> None:
    found = detections(tmp_path, (1, BOX, 0.9), (2, BOX, 0.8))
    assert evaluate_detections(annotations, found).as_dict() == dict(mAP=100.0, AP50=100, AP75=100)


def test_half_the_objects_found_score_half(annotations: Path, tmp_path: Path) -> None:
    # Precision is 1 up to recall 0.5: 51 of COCO's 101 recall thresholds.
    scores = evaluate_detections(annotations, detections(tmp_path, (1, BOX, 0.9)))
    assert scores.mAP == pytest.approx(100 * 51 / 101)


def test_a_shifted_box_counts_at_low_overlap_only(annotations: Path, tmp_path: Path) -> None:
    shifted = [10.0, 14.0, 20.0, 20.0]  # IoU 320 / 480 = 2/3: thresholds 0.50 to 0.65 of ten
    found = detections(tmp_path, (1, shifted, 0.9), (2, shifted, 0.8))
    scores = evaluate_detections(annotations, found)
    assert scores.AP50 == pytest.approx(100)
    assert scores.AP75 == 0
    assert scores.mAP == pytest.approx(40)


def test_no_detections_score_0(annotations: Path, tmp_path: Path) -> None:
    assert evaluate_detections(annotations, detections(tmp_path)).mAP == 0


def test_nothing_is_printed(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_detections(annotations, detections(tmp_path, (1, BOX, 0.9)))
    assert capsys.readouterr().out == ""


def test_missing_file(annotations: Path, tmp_path: Path) -> None:
    with pytest.raises((FileNotFoundError, InputError), match=r"none\.json"):
        evaluate_detections(annotations, tmp_path / "none.json")


def by_pycocotools(truth: Path, found: Path, settings: CocoSettings | None = None) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(str(found)), "bbox")
        if settings is not None:
            evaluation.params.areaRng = [list(limits) for limits in settings.areas.values()]
            evaluation.params.areaRngLbl = list(settings.areas)
            evaluation.params.maxDets = list(settings.max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
        if settings is None:
            evaluation.summarize()
    return evaluation


def scene(tmp_path: Path, seed: int) -> tuple[Path, Path]:
    truth = scenes.truth_of(seed)
    return (
        scenes.write(tmp_path, "truth.json", truth),
        scenes.write(tmp_path, "found.json", scenes.found_in(truth, seed)),
    )


def evaluated(truth: Path, found: Path, *arguments: CocoSettings, **options: str) -> Evaluation:
    annotations = read_annotations(truth)
    return evaluate(annotations, read_detections(found, annotations), *arguments, **options)


@pytest.mark.parametrize("seed", range(4))
def test_all_figures_are_pycocotools_own(tmp_path: Path, seed: int) -> None:
    files = scene(tmp_path, seed)
    expected, evaluation = by_pycocotools(*files), evaluated(*files)
    # Equal bits, not about equal.
    own = np.array(list(evaluation.metrics.values()))
    # pycocotools says -1 where there is nothing of a size.
    np.testing.assert_array_equal(own, np.where(expected.stats < 0, np.nan, 100 * expected.stats))
    np.testing.assert_array_equal(evaluation.precision, expected.eval["precision"])
    np.testing.assert_array_equal(evaluation.recall, expected.eval["recall"])
    np.testing.assert_array_equal(IOUS, expected.params.iouThrs)
    np.testing.assert_array_equal(RECALLS, expected.params.recThrs)


def test_average_precision_by_class(tmp_path: Path) -> None:
    files = scene(tmp_path, 5)
    evaluation = evaluated(*files)
    precision = by_pycocotools(*files).eval["precision"]
    for index, name in enumerate(("class 1", "class 3", "class 4")):
        assert evaluation.class_ap[name] == 100 * np.mean(precision[:, :, index, 0, 2])
    assert np.isnan(evaluation.class_ap["class 90"])  # which has no object


def test_other_areas_and_numbers_of_detections(tmp_path: Path) -> None:
    settings = CocoSettings(dict(all=(0, 1e10), tiny=(0, 300), rest=(300, 1e10)), (1, 3))
    files = scene(tmp_path, 6)
    evaluation, expected = evaluated(*files, settings), by_pycocotools(*files, settings)
    np.testing.assert_array_equal(evaluation.precision, expected.eval["precision"])
    np.testing.assert_array_equal(evaluation.recall, expected.eval["recall"])
    assert list(evaluation.metrics) == [
        "mAP", "AP50", "AP75", "AP_tiny", "AP_rest", "AR1", "AR3", "AR_tiny", "AR_rest"
    ]  # fmt: skip
    assert evaluation.metrics["AP_tiny"] == 100 * np.mean(
        [v for v in expected.eval["precision"][:, :, :, 1, 1].ravel() if v > -1]
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", [CocoSettings(), CocoSettings(max_detections=(2, 5))])
def test_the_faster_backend_agrees(tmp_path: Path, seed: int, settings: CocoSettings) -> None:
    pytest.importorskip("faster_coco_eval")
    files = scene(tmp_path, seed)
    slow, fast = evaluated(*files, settings), evaluated(*files, settings, backend="faster")
    np.testing.assert_allclose(fast.precision, slow.precision, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fast.recall, slow.recall, rtol=0, atol=1e-9)


def test_the_faster_backend_is_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(InputError, match=r"fast-eval"):
        evaluated(*scene(tmp_path, 0), backend="faster")


def test_parts_and_processes_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = scene(tmp_path, 7)
    whole = evaluated(*files)
    monkeypatch.setattr("mmkd.evaluation.coco._DETECTIONS_A_PART", 40)
    for workers in (1, 2):
        parts = evaluated(*files, workers=workers)
        np.testing.assert_array_equal(parts.precision, whole.precision)
        np.testing.assert_array_equal(parts.recall, whole.recall)
        for one, other in zip(parts.matches, whole.matches, strict=True):
            np.testing.assert_array_equal(one.true, other.true)
            np.testing.assert_array_equal(one.image, other.image)


def test_an_object_of_id_0_can_be_found(annotations: Path, tmp_path: Path) -> None:
    # pycocotools takes id 0 for 'not matched'.
    truth = json.loads(annotations.read_text())
    truth["annotations"][0]["id"] = 0
    annotations.write_text(json.dumps(truth))
    found = detections(tmp_path, (1, BOX, 0.9), (2, BOX, 0.8))
    assert evaluate_detections(annotations, found).mAP == 100


def test_an_image_without_objects_counts(annotations: Path, tmp_path: Path) -> None:
    truth = json.loads(annotations.read_text())
    truth["annotations"] = truth["annotations"][:1]
    annotations.write_text(json.dumps(truth))
    # The better score lies on the empty image: precision is 1/2 wherever the object is found.
    found = detections(tmp_path, (2, BOX, 0.9), (1, BOX, 0.8))
    assert evaluate_detections(annotations, found).mAP == pytest.approx(50)


@pytest.mark.parametrize(
    ("areas", "limits", "message"),
    [
        (dict(small=(0, 10)), (1,), "'all' as the first"),
        (dict(all=(0, 1e10), odd=(20, 10)), (1,), "'odd'.*20 to 10"),
        (dict(all=(0, 1e10)), (10, 1), "ascending"),
        (dict(all=(0, 1e10)), (), "ascending"),
        (dict(all=(0, 1e10)), (0, 1), "from 1 up"),
        (dict(all=(0, 1e10)), (1, 10**9 + 1), "up to 1000000000, got"),
    ],
)
def test_settings_that_are_none(
    areas: dict[str, tuple[float, float]], limits: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        CocoSettings(areas, limits)
