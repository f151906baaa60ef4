"""Detections of a checkpoint are those of the training's own validation."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import shutil
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
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
from mmkd.work_dirs.dumped_config import read_dumped_config


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
        (dict(cfg="model = dict(type='RPN')"), "expected a config with model and test_dataloader"),
    ):
        checkpoint = changed_checkpoint(run, tmp_path / "other.pth", meta=meta)
        with pytest.raises(InputError, match=message):
            detect(run, digits, tmp_path / "found.json", checkpoint=checkpoint)


def test_a_model_that_nobody_knows(run: Path, digits: Path, tmp_path: Path) -> None:
    text = torch.load(run / "epoch_1.pth", weights_only=False)["meta"]["cfg"]
    other = text.replace("'FasterRCNN'", "'FasterRCNNN'")
    assert other != text
    checkpoint = changed_checkpoint(run, tmp_path / "other.pth", meta=dict(cfg=other))
    with pytest.raises(InputError, match=r"names FasterRCNNN, which could"):
        detect(run, digits, tmp_path / "found.json", checkpoint=checkpoint)


class Executed:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


STRANGE = {
    "a dotted path": ("model", dict(type="pathlib.Path.touch", self=dict(type="pathlib.Path"))),
    "a system call": ("model.backbone", [dict(type="os.system", command="true")]),
    "a function of MMEngine's": ("model", dict(type="mmengine.load", file="x.pkl")),
    "a class of MMEngine's": ("model.neck", dict(type="mmengine.Config", filename="x.py")),
    "an evaluated name": ("model.test_cfg.rcnn.nms", dict(type="exec")),
    "a teacher of MMDetection's": (
        "model",
        dict(type="LAD", teacher_ckpt="http://localhost:9/x.pth", teacher_backbone=dict(type="A")),
    ),
    "a teacher's config": (
        "model",
        dict(type="mmdet.KnowledgeDistillationSingleStageDetector", teacher_config="x.py"),
    ),
    "a language model": ("model.language_model", dict(type="BertModel", name="x/y")),
    "timm's wrapper": (
        "model.backbone",
        dict(type="mmpretrain.TIMMBackbone", checkpoint_path="x.pth", model_name="resnet18"),
    ),
    "a scope": ("model.backbone._scope_", "antigravity"),
    "the scope": ("default_scope", "antigravity"),
    "a step that executes": (
        "test_dataloader.dataset.pipeline",
        [dict(type="mmengine.utils.call_command")],
    ),
    "a step that reads": ("test_dataloader.dataset.pipeline", [dict(type="LoadProposals")]),
    "a module": ("custom_imports", dict(imports=["antigravity"])),
    "a program of mmkd's": ("custom_imports", dict(imports="mmkd.__main__")),
}


def with_config(run: Path, file: Path, changes: dict[str, Any]) -> Path:
    """The run's checkpoint with another config inside."""
    meta = torch.load(run / "epoch_1.pth", weights_only=False)["meta"]
    config = Config(read_dumped_config(meta["cfg"]))
    for key in changes:
        config.pop(key, None)
    config.merge_from_dict(changes, allow_list_keys=False)
    return changed_checkpoint(run, file, meta=dict(meta, cfg=config.pretty_text))


@pytest.mark.parametrize("kind", STRANGE)
def test_a_checkpoints_config_executes_nothing(
    run: Path, digits: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MMEngine would import and call any dotted type, and build any registered one."""
    opened: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *args: opened.append(args))
    spoiled = with_config(run, tmp_path / "spoiled.pth", dict([STRANGE[kind]]))
    with pytest.raises(InputError, match=r"could execute anything.*: give the config's file"):
        detect(run, digits, tmp_path / "found.json", checkpoint=spoiled)
    assert "antigravity" not in sys.modules and not opened


def test_what_would_read_other_files_is_left_out(run: Path, digits: Path, tmp_path: Path) -> None:
    """Nothing of it is asked for: the weights are in the file, the images in the folder."""
    content = torch.load(run / "epoch_1.pth", weights_only=False)
    pipeline = Config(read_dumped_config(content["meta"]["cfg"])).val_dataloader.dataset.pipeline
    pipeline[0].backend_args = dict(backend="memcached", server_list_cfg="x", client_cfg="y")
    changes = {
        "model.backbone.init_cfg": dict(type="Pretrained", checkpoint="http://localhost:9/x.pth"),
        "val_dataloader.dataset.pipeline": pipeline,
        "test_dataloader": None,
    }
    checkpoint = with_config(run, tmp_path / "other.pth", changes)
    detect(run, digits, tmp_path / "found.json", checkpoint=checkpoint)
    expected = json.loads((run / "val.bbox.json").read_text())
    assert json.loads((tmp_path / "found.json").read_text()) == expected


READS = {
    "config": lambda path: Config.fromfile(path),
    "checkpoint": lambda path: load_checkpoint(torch.nn.Linear(1, 1), path),
    "weights": lambda path: torch.load(path),
    "address": lambda path: urllib.request.urlopen("http://localhost:9/x.pth"),
}


@pytest.mark.parametrize("kind", READS)
def test_nothing_is_opened_while_the_model_is_built(
    run: Path, digits: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a class that is thought to compute alone; with the config's own file it may."""
    from mmdet.models import ResNet

    stock, seen = ResNet.__init__, []

    def init(self: ResNet, *args: Any, **kwargs: Any) -> None:
        try:
            READS[kind]("none.py")
        except Exception as error:
            seen.append(error)
            raise
        stock(self, *args, **kwargs)

    monkeypatch.setattr(ResNet, "__init__", init)
    with pytest.raises(InputError, match="builds a model that reads another file or an address"):
        detect(run, digits, tmp_path / "found.json")
    [config] = run.glob("*.py")
    with pytest.raises(InputError, match="cannot be tested"):
        detect(run, digits, tmp_path / "found.json", config=config)
    assert [isinstance(each, InputError) for each in seen] == [True, False]


def test_every_allowed_detector_is_there() -> None:
    from mmkd.runs.mmengine import embedded_config

    for name in embedded_config._DETECTORS.split():
        assert importlib.util.find_spec(f"mmdet.models.detectors.{name}") is not None, name


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
