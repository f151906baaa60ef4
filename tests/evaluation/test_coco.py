"""Scores by pycocotools: known cases, and the trainer's own figures (see test_runs)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmkd.evaluation import evaluate_detections

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
    with pytest.raises(FileNotFoundError):
        evaluate_detections(annotations, tmp_path / "none.json")
