"""Detections of a checkpoint are those of the training's own validation."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from typer.testing import CliRunner

# The toy detectors of the engine's tests.
from helpers.detector import STUDENT_CONFIG, TEACHER_CONFIG, detector_config, write_detector_teacher
from helpers.own_loss import own_modules_in
from helpers.toy import train
from mmkd.cli import app
from mmkd.custom_imports import import_modules
from mmkd.data import make_digits
from mmkd.errors import InputError
from mmkd.evaluation import evaluate_detections
from mmkd.evaluation.coco_files import read_annotations
from mmkd.extras import installation
from mmkd.runs.detect import Detected, detect_with


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    return make_digits(folder, num_train=12, num_val=6, image_size=64, max_digits=4)


@pytest.fixture(scope="module")
def run(digits: Path) -> Path:
    """The work dir of a distilled detector, its teacher removed since."""
    teacher = write_detector_teacher(digits)
    hook = dict(type="mmkd.DistillHook", teacher=teacher)
    config = detector_config(digits, digits / "runs", custom_hooks=[hook])
    config.train_cfg.max_epochs = 1
    config.val_evaluator.outfile_prefix = f"{config.work_dir}/val"
    train(config)
    Path(teacher["checkpoint"]).unlink()
    return Path(config.work_dir)


def truth(digits: Path) -> dict[str, Any]:
    return json.loads((digits / "annotations/val.json").read_text())


def write(file: Path, content: Any) -> Path:
    file.write_text(json.dumps(content))
    return file


def detect(
    run: Path, digits: Path, out: Path, annotations: Path | None = None, **settings: Any
) -> Detected:
    checkpoint = settings.pop("checkpoint", run / "epoch_1.pth")
    images = settings.pop("images", digits / "val")
    found = read_annotations(annotations or digits / "annotations/val.json")
    return detect_with(checkpoint, found, images, out, **settings)


def changed_checkpoint(run: Path, file: Path, **changes: Any) -> Path:
    """The run's checkpoint with entries replaced."""
    content = torch.load(run / "epoch_1.pth", weights_only=False)
    torch.save({**content, **changes}, file)
    return file


def test_as_the_trainings_own_validation(
    run: Path,
    digits: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    untouched_random_state: None,
) -> None:
    """From the checkpoint alone, without the teacher, in silence, whatever scope is set."""
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        detected = detect(run, digits, tmp_path / "new/found.json")
        assert DefaultScope.get_current_instance().scope_name == "mmpretrain"
    expected = json.loads((run / "val.bbox.json").read_text())
    assert len(expected) > 20
    assert json.loads(detected.detections.read_text()) == expected
    weights = torch.load(run / "epoch_1.pth", weights_only=False)["state_dict"]
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    own = [v.numel() for k, v in weights.items() if not k.endswith(statistics)]
    assert detected.parameters == sum(own)
    assert capfd.readouterr() == ("", "")
    names = {each.name for each in (tmp_path / "new").iterdir()}
    assert names == {"found.json", "found.json.log"}


def test_with_a_config(run: Path, digits: Path, tmp_path: Path) -> None:
    [config] = run.glob("*.py")
    checkpoint = changed_checkpoint(run, tmp_path / "bare.pth", meta={})
    detect(run, digits, tmp_path / "found.json", checkpoint=checkpoint, config=config)
    expected = json.loads((run / "val.bbox.json").read_text())
    assert json.loads((tmp_path / "found.json").read_text()) == expected


def test_a_subset_of_the_images(run: Path, digits: Path, tmp_path: Path) -> None:
    """Ids come from the annotation file: another numbering of categories, and fewer images."""
    content = truth(digits)
    content["images"] = content["images"][:4]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    for each in content["categories"]:
        each["id"] += 50
    for each in content["annotations"]:
        each["category_id"] += 50
    file = write(tmp_path / "truth.json", content)
    detect(run, digits, tmp_path / "found.json", file)
    found = json.loads((tmp_path / "found.json").read_text())
    whole = json.loads((run / "val.bbox.json").read_text())
    expected = [
        {**box, "category_id": box["category_id"] + 50} for box in whole if box["image_id"] in ids
    ]
    assert found == expected and len(found) < len(whole)


def test_other_classes(run: Path, digits: Path, tmp_path: Path) -> None:
    content = truth(digits)
    content["categories"][3]["name"] = "three"
    file = write(tmp_path / "truth.json", content)
    with pytest.raises(InputError, match=r"classes \['0'.*'3'.* categories \['0'.*'three'"):
        detect(run, digits, tmp_path / "found.json", file)
    assert not (tmp_path / "found.json").exists()


def test_classes_in_another_order(run: Path, digits: Path, tmp_path: Path) -> None:
    """MMDetection goes by the order, not by the names."""
    content = truth(digits)
    content["categories"].reverse()
    file = write(tmp_path / "truth.json", content)
    with pytest.raises(InputError, match=r"lists its categories in the order \['9'"):
        detect(run, digits, tmp_path / "found.json", file)


def test_a_missing_image(run: Path, digits: Path, tmp_path: Path) -> None:
    images = shutil.copytree(digits / "val", tmp_path / "val")
    name = truth(digits)["images"][2]["file_name"]
    (images / name).unlink()
    with pytest.raises(InputError, match=rf"1 of the 6 images of .* not in .*val: {name}\."):
        detect(run, digits, tmp_path / "found.json", images=images)
    with pytest.raises(InputError, match=r"6 of the 6 images .* and 1 more"):
        detect(run, digits, tmp_path / "found.json", images=tmp_path / "none")


def test_a_damaged_image(run: Path, digits: Path, tmp_path: Path) -> None:
    images = shutil.copytree(digits / "val", tmp_path / "val")
    (images / truth(digits)["images"][2]["file_name"]).write_text("no picture")
    with pytest.raises(InputError, match=r"cannot be tested on these images: .* More in .*\.log"):
        detect(run, digits, tmp_path / "found.json", images=images)
    assert "Traceback" in (tmp_path / "found.json.log").read_text()
    assert not (tmp_path / "found.json").exists()


def test_nothing_is_overwritten(run: Path, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text("mine")
    with pytest.raises(InputError, match=r"found\.json exists, and is not overwritten"):
        detect(run, digits, tmp_path / "found.json")
    assert (tmp_path / "found.json").read_text() == "mine"


def test_no_images(run: Path, digits: Path, tmp_path: Path) -> None:
    content = dict(truth(digits), images=[], annotations=[])
    with pytest.raises(InputError):
        detect(run, digits, tmp_path / "found.json", write(tmp_path / "truth.json", content))


def test_weights_that_do_not_fit(run: Path, digits: Path, tmp_path: Path) -> None:
    weights = torch.load(run / "epoch_1.pth", weights_only=False)["state_dict"]
    key = "roi_head.bbox_head.fc_cls.bias"
    lacking = {k: v for k, v in weights.items() if k != key}
    for state, message in (
        (lacking, f"1 weights differ: {key} is missing"),
        ({**weights, "more": torch.ones(1)}, "1 weights differ: more has no place in the model"),
    ):
        checkpoint = changed_checkpoint(run, tmp_path / "other.pth", state_dict=state)
        with pytest.raises(InputError, match=message):
            detect(run, digits, tmp_path / "found.json", checkpoint=checkpoint)
    with pytest.raises(InputError, match=r"is \(8, .* in the file, \(16, .* and \d+ more"):
        detect(run, digits, tmp_path / "found.json", config=TEACHER_CONFIG)
    # Which is no accident of the file: its own config takes it.
    detect(run, digits, tmp_path / "found.json", config=STUDENT_CONFIG)


def test_a_checkpoint_without_its_config(run: Path, digits: Path, tmp_path: Path) -> None:
    for meta, message in (
        ({}, "does not hold its config: give the config's file"),
        (dict(cfg="import os"), "cannot be read .* give the config's file"),
        (dict(cfg="model = dict(type='A')"), "expected a config with model and test_dataloader"),
    ):
        checkpoint = changed_checkpoint(run, tmp_path / "other.pth", meta=meta)
        with pytest.raises(InputError, match=message):
            detect(run, digits, tmp_path / "found.json", checkpoint=checkpoint)


def test_a_model_that_nobody_knows(run: Path, digits: Path, tmp_path: Path) -> None:
    text = torch.load(run / "epoch_1.pth", weights_only=False)["meta"]["cfg"]
    other = text.replace("'FasterRCNN'", "'FasterRCNNN'")
    assert other != text
    checkpoint = changed_checkpoint(run, tmp_path / "other.pth", meta=dict(cfg=other))
    with pytest.raises(InputError, match=r"cannot be tested .*FasterRCNNN"):
        detect(run, digits, tmp_path / "found.json", checkpoint=checkpoint)


class Executed:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize(
    "line",
    [
        "model = dict(type='pathlib.Path.touch', self=dict(type='pathlib.Path'))",
        "model = dict(backbone=[dict(type='os.system', command='true')])",
        "test_dataloader = dict(dataset=dict(pipeline=[dict(type='mmengine.utils.call_command')]))",
        "custom_imports = dict(imports=['antigravity'])",
    ],
)
def test_a_checkpoints_config_executes_nothing(
    run: Path, digits: Path, tmp_path: Path, line: str
) -> None:
    """MMEngine would import and call any dotted type."""
    meta = torch.load(run / "epoch_1.pth", weights_only=False)["meta"]
    spoiled = changed_checkpoint(
        run, tmp_path / "spoiled.pth", meta=dict(meta, cfg=f"{meta['cfg']}\n{line}\n")
    )
    with pytest.raises(InputError, match=r"could execute anything: give the config's file"):
        detect(run, digits, tmp_path / "found.json", checkpoint=spoiled)
    assert "antigravity" not in sys.modules


def test_a_module_that_the_user_imported_is_trusted(
    run: Path, digits: Path, tmp_path: Path
) -> None:
    """By ``mmkd eval --import``."""
    (tmp_path / "own_for_detection.py").touch()
    meta = torch.load(run / "epoch_1.pth", weights_only=False)["meta"]
    line = "\ncustom_imports = dict(imports=['own_for_detection'])\n"
    own = changed_checkpoint(run, tmp_path / "own.pth", meta=dict(meta, cfg=meta["cfg"] + line))
    with own_modules_in(tmp_path):
        with pytest.raises(InputError, match="names own_for_detection, which could execute"):
            detect(run, digits, tmp_path / "found.json", checkpoint=own)
        import_modules(["own_for_detection"])
        assert detect(run, digits, tmp_path / "found.json", checkpoint=own).parameters > 0


def test_what_is_no_checkpoint(run: Path, digits: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    file.write_bytes(pickle.dumps(Executed(tmp_path / "trace")))
    with pytest.raises(InputError, match="is no checkpoint, is damaged, or holds more than"):
        detect(run, digits, tmp_path / "found.json", checkpoint=file)
    changed_checkpoint(run, file, extra=Executed(tmp_path / "trace"))
    with pytest.raises(InputError, match="holds more than weights, which is not executed"):
        detect(run, digits, tmp_path / "found.json", checkpoint=file)
    assert not (tmp_path / "trace").exists()
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.pth"):
        detect(run, digits, tmp_path / "found.json", checkpoint=tmp_path / "none.pth")


def test_without_ultralytics(
    run: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "last.pt").touch()
    monkeypatch.delitem(sys.modules, "mmkd.runs.ultralytics.detection", raising=False)
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(InputError, match=re.escape(installation("yolo"))):
        detect(run, digits, tmp_path / "found.json", checkpoint=tmp_path / "last.pt")


def test_eval_runs_a_checkpoint_once(
    run: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, json_file = digits / "annotations/val.json", tmp_path / "out.json"
    arguments = ["eval", str(truth), f"student={run / 'epoch_1.pth'}", "--json", str(json_file)]
    arguments += ["--images", str(digits / "val"), "--out", str(tmp_path)]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    student = json.loads(json_file.read_text())["runs"]["student"]
    expected = evaluate_detections(truth, run / "val.bbox.json")
    assert student["metrics"]["mAP"]["mean"] == expected.mAP
    assert student["parameters"] > 0
    monkeypatch.setattr("mmkd.commands.checkpoint_detections.detect_with", None)
    json_file.unlink()
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert json.loads(json_file.read_text())["runs"]["student"] == student
    # Asked to, it does so anew.
    again = CliRunner().invoke(app, [*arguments, "--force"])
    assert isinstance(again.exception, TypeError)


def test_eval_detects_anew_where_anything_that_it_reads_has_changed(
    run: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [config] = run.glob("*.py")
    base, own = tmp_path / "base.py", tmp_path / "own.py"
    shutil.copy(config, base)
    own.write_text("_base_ = 'base.py'\n")
    images, checkpoint = tmp_path / "images", tmp_path / "student.pth"
    shutil.copytree(digits / "val", images)
    shutil.copy(run / "epoch_1.pth", checkpoint)
    made: list[Path] = []

    def detect(checkpoint: Path, annotations: Any, images: Path, out: Path, **_: Any) -> Detected:
        made.append(out)
        out.parent.mkdir(exist_ok=True)
        out.write_text("[]")
        return Detected(out, 1)

    monkeypatch.setattr("mmkd.commands.checkpoint_detections.detect_with", detect)

    def evaluate() -> int:
        arguments = ["eval", str(digits / "annotations/val.json"), f"student={checkpoint}"]
        arguments += ["--images", str(images), "--config", f"student={own}"]
        result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
        return len(made)

    assert (evaluate(), evaluate()) == (1, 1)
    base.write_text(base.read_text() + "\ntest_dataloader['batch_size'] = 3\n")
    assert (evaluate(), evaluate()) == (2, 2)
    image = next(images.iterdir())
    image.write_bytes(bytes(image.stat().st_size))
    assert (evaluate(), evaluate()) == (3, 3)
    checkpoint.write_bytes(checkpoint.read_bytes() + b"x")
    assert (evaluate(), evaluate()) == (4, 4)
    # The same in another place is no other.
    shutil.move(images, tmp_path / "moved")
    images = tmp_path / "moved"
    assert evaluate() == 4
    assert len(set(made)) == 4
