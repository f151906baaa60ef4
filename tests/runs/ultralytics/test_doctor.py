"""The doctor on Ultralytics' trainer: what it finds, and that nothing of it stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner
from ultralytics import YOLO
from ultralytics.utils import callbacks

from helpers.yolo_toy import DEFINITION, SIZE, TAP, YOLOToy, make_toy, train, write_definition
from mmkd.cli import app
from mmkd.doctor import Advice, Examination, advise
from mmkd.engine.settings import DistillSettings
from mmkd.errors import InputError
from mmkd.runs.ultralytics import doctor
from mmkd.runs.ultralytics.doctor import examine, examine_levels

TERMS = dict(maps=dict(weight=dict(share=0.4)), fixed=dict(weight=0.01))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> YOLOToy:
    return make_toy(tmp_path_factory.mktemp("yolo"))


@pytest.fixture(scope="module")
def trained(toy: YOLOToy) -> str:
    """A teacher that knows the data's classes."""
    definition = write_definition(toy.folder / "wide.yaml", DEFINITION, 1.5, 10)
    still = dict.fromkeys(("mosaic", "scale", "translate", "fliplr"), 0.0)
    trainer = train(
        toy, YOLO(definition), epochs=40, optimizer="AdamW", lr0=0.01, val=False, **still
    )
    return str(trainer.last)


def settings(toy: YOLOToy, teacher: str, **changes: Any) -> dict[str, Any]:
    common = dict(imgsz=SIZE, batch=4, workers=0, device="cpu", epochs=3, nbs=4)
    own = dict(model=str(toy.student), teacher=teacher, data=str(toy.data), terms=TERMS)
    return {**common, **own, **changes}


def errors(found: Examination) -> list[Advice]:
    return [each for each in advise(found) if each.level == "error"]


def test_a_healthy_distillation(toy: YOLOToy, trained: str) -> None:
    found = examine(settings(toy, trained), iterations=3)
    assert not errors(found), advise(found)
    maps, fixed = found.terms
    assert maps.student_shapes == ((4, 32, 4, 4),)
    assert maps.teacher_shapes == ((4, 48, 4, 4),)
    assert maps.samples == 4 * 4 * 4
    assert maps.share == pytest.approx(0.4, abs=0.25)
    assert fixed.weight == pytest.approx(0.01)
    assert maps.is_balanced and not fixed.is_balanced
    [teacher] = found.teachers
    assert 1 < teacher.accuracy < 100
    assert teacher.images == 4
    assert found.iterations == 3 * 4
    assert 0 < found.plain.seconds and 0 < found.distilled.seconds
    assert 0 < found.teacher_share < 1


def test_planted_faults(toy: YOLOToy, trained: str) -> None:
    untrained = toy.folder / "untrained.pt"
    YOLO(toy.folder / "wide.yaml").save(untrained)
    [error] = errors(examine(settings(toy, str(untrained)), iterations=2))
    assert (
        error.about == "teacher"
        and "it scores 0.0% on 4 validation images: it is not trained" in error.text
    )
    drowned = dict(maps=dict(weight=1e4))
    [error] = errors(examine(settings(toy, trained, terms=drowned), iterations=2))
    assert error.about == "terms.maps.weight"
    late = dict(maps=dict(schedule=dict(begin=50)))
    [error] = errors(examine(settings(toy, trained, terms=late), iterations=2))
    assert error.about == "terms.maps.schedule"


def test_a_teacher_of_other_classes_has_no_accuracy(toy: YOLOToy) -> None:
    found = examine(settings(toy, str(toy.teacher)), iterations=2)
    assert found.teachers[0].accuracy is None and found.teachers[0].parameters > 0
    [advice] = advise(found)
    assert (advice.level, advice.about) == ("warning", "teacher")
    assert "is not known: it tells 3 classes apart, the student 10" in advice.text


def test_without_coco_s_evaluation_the_accuracy_is_said_to_be_unknown(
    toy: YOLOToy, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "average_precision", lambda *args: None)
    monkeypatch.setattr(doctor, "cannot_be_told", lambda: "install mmkd[eval]")
    [advice] = advise(examine(settings(toy, trained), iterations=2))
    assert advice.text == "its accuracy on these images is not known: install mmkd[eval]"


def test_the_accuracy_is_that_of_ultralytics_validation(toy: YOLOToy, trained: str) -> None:
    [teacher] = examine(settings(toy, trained), iterations=1).teachers
    found = YOLO(trained).val(
        data=str(toy.data), imgsz=SIZE, plots=False, verbose=False, rect=False
    )
    # The same boxes; pycocotools interpolates another way.
    assert teacher.accuracy == pytest.approx(100 * found.box.map, rel=0.15)


def test_a_teacher_in_half_precision(
    toy: YOLOToy, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where Ultralytics trains in mixed precision."""
    stock = DistillSettings.build

    def build(self: DistillSettings, *args: Any, **settings: Any) -> Any:
        return stock(self, *args, **{**settings, "dtype": torch.bfloat16})

    [whole] = examine(settings(toy, trained), iterations=1).teachers
    monkeypatch.setattr(DistillSettings, "build", build)
    [half] = examine(settings(toy, trained), iterations=1).teachers
    assert half.accuracy == pytest.approx(whole.accuracy, rel=0.3)


def test_services_that_keep_a_record_of_runs_see_nothing(
    toy: YOLOToy, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(callbacks, "add_integration_callbacks", seen.append)
    examine(settings(toy, trained), iterations=1)
    assert not seen
    assert callbacks.add_integration_callbacks == seen.append


def test_several_devices(toy: YOLOToy, trained: str) -> None:
    for device in ("0,1", [0, 1]):
        with pytest.raises(InputError, match="device: expected one to look at, got"):
            examine(settings(toy, trained, device=device))


def test_images_of_another_kind(toy: YOLOToy, trained: str) -> None:
    wrong = dict(module=YOLO(trained).model, mean=[300.0] * 3, std=[255.0] * 3, order="rgb")
    terms = dict(maps=dict(student=TAP, teacher=TAP, weight=dict(share=0.4)))
    [error] = errors(examine(settings(toy, wrong, terms=terms), iterations=1))
    assert error.about == "teacher"
    assert "with the student's own images: it is given images of another kind" in error.text


def test_levels(toy: YOLOToy, trained: str) -> None:
    found = examine_levels(settings(toy, trained))
    # Of the backbone the two that its head reads or that end it, and of the neck another.
    assert found.student == found.teacher == ("model.2[-1]", "model.4[-1]", "model.7[-1]")
    assert found.own == (0, 1, 2)
    assert all(0 <= value <= 1 for row in found.cka for value in row)
    # Too few objects.
    assert found.student_probe == found.leads == (None, None, None)
    same = examine_levels(settings(toy, trained, model=trained))
    assert [same.cka[index][index] for index in range(3)] == pytest.approx([1] * 3, abs=1e-4)


def test_without_a_teacher(toy: YOLOToy) -> None:
    with pytest.raises(InputError, match="teacher: expected one to look at, found none"):
        examine(settings(toy, None))


def test_the_command_writes_nothing(
    toy: YOLOToy, trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pair.yaml").write_text(
        yaml.safe_dump(settings(toy, trained, project="runs"), sort_keys=False)
    )
    call = ["doctor", "pair.yaml", "terms.fixed.weight=1000000", "--iterations", "2", "--json"]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 1, done.output
    content = json.loads(done.stdout)
    assert content["advice"][0]["about"] == "terms.fixed.weight"
    assert [each["name"] for each in content["terms"]] == ["maps", "fixed"]
    assert [file.name for file in tmp_path.iterdir()] == ["pair.yaml"]
    done = CliRunner().invoke(app, ["doctor", "pair.yaml", "teacher=nowhere.pt"])
    assert done.exit_code == 2 and "nowhere.pt" in done.output


def test_where_a_run_does_not_lie_yet(toy: YOLOToy, tmp_path: Path) -> None:
    """Ultralytics would train into another folder beside it."""
    file = tmp_path / "pair.yaml"
    file.write_text(yaml.safe_dump(dict(model=str(toy.student), data=str(toy.data))))
    done = CliRunner().invoke(app, ["doctor", str(file), "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert "train with exist_ok=True" in " ".join(done.output.split())
    assert not (tmp_path / "run").exists()
