"""Configs by name: ``mmkd::...``, and those of other packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mmengine.utils.package_utils
import pytest
from mmengine.config import Config

from mmkd.configs import config_file
from mmkd.engine.mmengine.config_files import open_config, read_config
from mmkd.errors import InputError, MissingFileError

STUDENT = "classification/digits/resnet8-w4_logsum_digits.py"
YOLO = "yolo/digits/yolov5n-small_digits_distill.yaml"


def scopes(settings: Any) -> set[str]:
    """Every ``_scope_`` of nested settings."""
    found: set[str] = set()
    if isinstance(settings, dict):
        found |= {settings["_scope_"]} if "_scope_" in settings else set()
        settings = list(settings.values())
    for each in settings if isinstance(settings, list | tuple) else ():
        found |= scopes(each)
    return found


def test_a_config_by_name_is_the_file() -> None:
    named = open_config(f"mmkd::{STUDENT}")
    assert named.to_dict() == Config.fromfile(config_file(STUDENT)).to_dict()
    assert named.custom_hooks[0].teacher.config == str(
        Path(config_file(STUDENT)).with_name("resnet8_digits.py")
    )


def test_a_base_by_name_is_the_file(tmp_path: Path) -> None:
    """Its parts are looked up as if the file had been named: in no scope of their own."""
    own = tmp_path / "own.py"
    found = []
    for base in (f"mmkd::{STUDENT}", config_file(STUDENT)):
        own.write_text(
            f"_base_ = [{base!r}]\n"
            "train_dataloader = dict(batch_size=32)\n"
            "test_pipeline = _base_.pipeline\n"
        )
        found.append(Config.fromfile(own).to_dict())
    assert found[0] == found[1]
    assert found[0]["train_dataloader"]["batch_size"] == 32
    assert scopes(found[0]) == set()


def test_a_base_of_another_package_keeps_its_scope(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'\n")
    assert "mmdet" in scopes(open_config(own).to_dict())


def test_yaml_by_name(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(f"_base_: mmkd::{YOLO}\nname: own\n")
    by_file, by_base = read_config(config_file(YOLO)), read_config(own)
    assert read_config(f"mmkd::{YOLO}") == by_file
    assert by_base == {**by_file, "name": "own"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none.py", "no such file"),
        ("none.txt", "no such file"),
        ("nopackage::none/none.py", "nopackage"),
        ("mmdet::none/none.py", "none.py"),
    ],
)
def test_a_name_that_is_none(name: str, reason: str) -> None:
    with pytest.raises(MissingFileError, match=r"expected a file's path or 'package::path'") as e:
        open_config(name)
    assert str(e.value).startswith(f"no config {name!r}")
    assert reason in str(e.value) and "\n" not in str(e.value)


def test_a_file_that_is_no_config(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.touch()
    with pytest.raises(MissingFileError, match=r"it ends in none of \.py, \.json"):
        open_config(file)
    with pytest.raises(MissingFileError, match=r"^mmkd has no config 'none\.py'$"):
        open_config("mmkd::none.py")


def test_a_missing_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """MMEngine's own function would call pip."""

    def call(*arguments: Any, **settings: Any) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(mmengine.utils.package_utils, "call_command", call)
    with pytest.raises(InputError, match="mmyolo is not installed"):
        open_config("mmyolo::yolov5/yolov5_s.py")


@pytest.mark.parametrize("name", ["", "net = "])
def test_a_module_is_no_value_of_a_config(tmp_path: Path, name: str) -> None:
    """The error names where it is used, whatever else the file calls it."""
    file = tmp_path / "c.py"
    module = "torch.nn.Identity()"
    file.write_text(
        f"_base_ = []\nimport torch\n{name}{module if name else ''}\n"
        "custom_hooks = [dict(type='mmkd.DistillHook', "
        f"teacher=dict(module={'net' if name else module}))]\n"
    )
    with pytest.raises(InputError) as error:
        open_config(file)
    assert str(error.value).startswith("custom_hooks.0.teacher.module: ")
    assert "runner.register_hook(DistillHook(" in str(error.value)


def test_options(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("a = dict(b=1, c=[dict(d=2)])\n")
    config = open_config(file, ["a.b=[1,2]", "a.c.0.d=x=y", "e=-3"])
    assert config.to_dict() == dict(a=dict(b=[1, 2], c=[dict(d="x=y")]), e=-3)
    for wrong in ("a", "a=", "=1", "--a=1"):
        with pytest.raises(InputError, match=f"^expected key=value, got '{wrong}'$"):
            open_config(file, [wrong])
    with pytest.raises(InputError, match=r"own\.py cannot be read as a config: .*Index 9"):
        open_config(file, ["a.c.9.d=3"])
