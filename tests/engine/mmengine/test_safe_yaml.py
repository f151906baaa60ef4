"""YAML is data, wherever a config is read."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config
from typer.testing import CliRunner

from helpers.small_scale import ROOT
from mmkd.cli import app
from mmkd.engine.mmengine.config_files import open_config, read_config
from mmkd.engine.mmengine.safe_yaml import load_config
from mmkd.errors import InputError

BASES = {
    "own": ("config.yaml", None),
    "yml": ("config.yml", None),
    "of YAML": ("base.yaml", ("config.yaml", "_base_: base.yaml\n")),
    "of JSON": ("base.yaml", ("config.json", '{"_base_": "base.yaml"}')),
    "of Python": ("base.yaml", ("config.py", "_base_ = 'base.yaml'\n")),
}


@pytest.fixture
def hostile(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A config that inherits a tag, and the file that the tag would leave."""

    def write(kind: str = "own") -> tuple[Path, Path]:
        trace = tmp_path / "trace"
        name, heir = BASES[kind]
        tagged = f'a: 1\nmodel: !!python/object/apply:os.system ["touch {trace}"]\n'
        (tmp_path / name).write_text(tagged)
        if heir is not None:
            name, text = heir
            (tmp_path / name).write_text(text)
        return tmp_path / name, trace

    return write


@pytest.mark.parametrize("read", [load_config, read_config, open_config])
@pytest.mark.parametrize("kind", BASES)
def test_a_tag_is_not_executed(
    read: Callable, kind: str, hostile: Callable[..., tuple[Path, Path]]
) -> None:
    config, trace = hostile(kind)
    with pytest.raises(ValueError, match=r"of plain values: .*os\.system.*line 2") as caught:
        read(config)
    assert not trace.exists()
    assert "\n" not in str(caught.value)


def test_mmengine_reads_as_before_elsewhere(hostile: Callable[..., tuple[Path, Path]]) -> None:
    """A program that imports mmkd keeps its own reader; so the tag of these tests is a real one."""
    config, trace = hostile()
    with pytest.raises(InputError):
        load_config(config)
    assert Config.fromfile(config).model == 0
    assert trace.is_file()


@pytest.mark.parametrize("command", [["yolo", "train"], ["compare"]])
def test_commands(
    command: list[str], hostile: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    config, trace = hostile()
    options = ["--out", str(tmp_path / "out")] if command == ["compare"] else []
    done = CliRunner().invoke(app, [*command, str(config), *options])
    assert done.exit_code == 2
    assert "os.system" in done.output and done.output.count("\n") == 1
    assert not trace.exists()


@pytest.mark.parametrize("name", ["train", "test"])
def test_tools(
    name: str, hostile: Callable[..., tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, trace = hostile()
    spec = importlib.util.spec_from_file_location(f"{name}_yaml", ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", [name, str(config), "x.pth"][: 2 + (name == "test")])
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(InputError, match="no YAML of plain values"):
        script.main()
    assert not trace.exists()


def test_what_mmengine_writes_is_read(tmp_path: Path) -> None:
    """Its tuples carry a tag."""
    content = dict(model=dict(scales=((1, 2), (3, 4)), names=["a"]), rate=0.1, nothing=None)
    file = tmp_path / "config.yaml"
    Config(content).dump(file)
    assert "!!python/tuple" in file.read_text()
    assert load_config(file).to_dict() == content


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "3", "", "a: [1", "a: \x00"])
@pytest.mark.parametrize("name", ["config.yaml", "heir.yaml"])
def test_what_holds_no_settings(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    (tmp_path / "heir.yaml").write_text("_base_: config.yaml\n")
    with pytest.raises(InputError) as caught:
        read_config(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_json_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"config\.json.*expected settings"):
        load_config(tmp_path / "config.json")
