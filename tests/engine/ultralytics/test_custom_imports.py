"""A user's own loss in a YOLO training: by the settings, and by the command's option."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest
from typer.testing import CliRunner

from helpers.own_loss import own_modules_in, write_own_loss
from helpers.yolo_toy import YOLOToy
from mmkd.cli import app
from mmkd.engine.ultralytics.safe_start import SafeStart
from mmkd.engine.ultralytics.train import add_imports, prepare, read_settings
from mmkd.errors import InputError
from mmkd.registry import MODELS


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """The module's file, in the current folder."""
    with own_modules_in(tmp_path):
        yield write_own_loss(tmp_path / "own_yolo_loss.py")


def test_custom_imports_of_a_config(own: Path) -> None:
    """Ultralytics never sees them, and its processes for several GPUs import them too."""
    config = own.with_name("config.yaml")
    text = "model: yolov5n.yaml\nteacher:\ndata: coco8.yaml\n"
    config.write_text(text + "custom_imports: {imports: [own_yolo_loss]}\n")
    settings = read_settings(config, ["epochs=1"])
    assert "OwnLoss" not in MODELS.module_dict
    model, arguments = prepare(settings)
    assert arguments == dict(data="coco8.yaml", epochs=1, trainer=SafeStart)
    assert "OwnLoss" in MODELS.module_dict
    state = own.with_name("callbacks.pkl")
    state.write_bytes(cloudpickle.dumps(model.callbacks))
    code = (
        f"import pickle; pickle.load(open({str(state)!r}, 'rb'))\n"
        "from mmkd.registry import MODELS; assert 'OwnLoss' in MODELS.module_dict"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_option_adds_to_them() -> None:
    assert add_imports(dict(model="m"), []) == dict(model="m")
    for given, expected in ((None, ["b"]), ("a", ["a", "b"]), (["a"], ["a", "b"])):
        settings = {} if given is None else dict(custom_imports=dict(imports=given))
        assert add_imports(settings, ["b"])["custom_imports"] == dict(imports=expected)


def test_what_cannot_be_imported(own: Path) -> None:
    settings = dict(model="yolov5n.yaml", teacher=None, custom_imports=dict(imports=["own_none"]))
    with pytest.raises(InputError, match="custom_imports own_none: no module 'own_none'"):
        prepare(settings)
    with pytest.raises(InputError, match=r"expected dict\(imports="):
        prepare({**settings, "custom_imports": ["own_yolo_loss"]})


@pytest.mark.parametrize("name", ["own_yolo_loss", "own_yolo_loss.py"])
def test_the_command_trains_with_an_own_loss(toy: YOLOToy, own: Path, name: str) -> None:
    done = CliRunner().invoke(
        app,
        [
            *("yolo", "train", f"model={toy.student}", f"teacher={toy.teacher}"),
            *(f"data={toy.data}", f"project={own.parent}", "name=run", "epochs=1", "imgsz=64"),
            *("batch=8", "device=cpu", "plots=False", "workers=0", "--import", name),
            "terms.backbone.loss.type=mmkd.OwnLoss",
        ],
    )
    assert done.exit_code == 0, done.output
    [row] = csv.DictReader((own.parent / "run/results.csv").open(newline=""))
    assert float(row["distill/backbone"]) == 7
