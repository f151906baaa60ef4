"""The wheel, as a user has it who has no clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt
from mmengine.config import Config
from mmengine.registry import MODELS

import mmkd
from mmkd.configs import config_file

ROOT = Path(__file__).parents[1]
CONFIG = "classification/digits/resnet8-w4_logsum_digits.py"


def uv(*arguments: str | Path) -> None:
    beside = Path(sys.executable).parent
    program = shutil.which("uv", path=os.pathsep.join([str(beside), os.environ["PATH"]]))
    assert program is not None, "uv is one of the dev group's packages"
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--wheel", "--out-dir", folder, ROOT)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def page(wheel: Path) -> Message:
    """What a package index shows of it."""
    with zipfile.ZipFile(wheel) as archive:
        name = f"mmkd-{mmkd.__version__}.dist-info/METADATA"
        return message_from_string(archive.read(name).decode())


def install(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment that holds the wheel and nothing else."""
    venv.create(folder)
    uv("pip", "install", "--no-deps", "--offline", "--python", folder / "bin/python", wheel)
    return folder / "bin/python"


def packages(python: Path) -> Path:
    [folder] = python.parents[1].glob("lib/*/site-packages")
    return folder


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with torch and all others: those of the tests', behind the wheel."""
    program = install(wheel, tmp_path_factory.mktemp("environment"))
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    packages(program).joinpath("others.pth").write_text("\n".join(others))
    return program


def run(*command: str | Path, cwd: Path) -> str:
    """What a user's call says, whose environment knows nothing of this clone."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [str(part) for part in command]
    done = subprocess.run(line, cwd=cwd, env=inherited, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_links_to_nothing_that_it_lacks(page: Message) -> None:
    text = str(page.get_payload())
    assert page["Description-Content-Type"] == "text/markdown"
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    inside = [token for block in blocks for token in block.children or []]
    links = [token.attrs.get("href") or token.attrs.get("src") for token in inside]
    links = [str(link) for link in links if link]
    assert len(links) > 2
    assert [link for link in links if not link.startswith("https://")] == []
    # What a link said stays.
    assert "See CONTRIBUTING.md for how to add a loss" in text
    assert "serves classifiers of MMPretrain" in " ".join(text.split())


def test_the_wheel_holds_what_belongs_to_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "mmkd/py.typed" in names
    shipped = {
        f"mmkd/.mim/{folder}/{file.relative_to(ROOT / folder).as_posix()}"
        for folder in ("configs", "tools")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert len(shipped) > 150
    assert shipped <= names
    assert {name.partition("/")[0] for name in names} == {
        "mmkd",
        f"mmkd-{mmkd.__version__}.dist-info",
    }


def test_type_checkers_see_its_types(wheel: Path, tmp_path: Path) -> None:
    """In a user's file; torch and the others are not there, and not needed for it."""
    python = install(wheel, tmp_path / "environment")
    own = tmp_path / "own.py"
    own.write_text("from mmkd.configs import config_file\nreveal_type(config_file)\n")
    settings = ["--python-executable", python, "--ignore-missing-imports"]
    quiet = ["--cache-dir", tmp_path / "cache", "--follow-imports=silent"]
    said = run(sys.executable, "-m", "mypy", *settings, *quiet, own, cwd=tmp_path)
    assert 'Revealed type is "def (name: str) -> str"' in said.replace("builtins.", "")


def test_it_says_its_version_and_how_it_is_called(python: Path, tmp_path: Path) -> None:
    module = [python, "-m", "mmkd"]
    for start in ([python.with_name("mmkd")], module):
        assert run(*start, "--version", cwd=tmp_path) == f"mmkd {mmkd.__version__}\n"
    assert "Usage: python -m mmkd train [OPTIONS]" in run(*module, "train", "--help", cwd=tmp_path)


def test_it_trains_from_a_config_by_name(python: Path, tmp_path: Path) -> None:
    """One step of a distillation, in an empty folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    settings = Config.fromfile(config_file(CONFIG)).custom_hooks[0].teacher
    teacher = MODELS.build(dict(Config.fromfile(settings.config).model, _scope_="mmpretrain"))
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")

    where = run(python, "-c", "import mmkd; print(mmkd.__file__)", cwd=folder)
    assert Path(where.strip()) == packages(python) / "mmkd/__init__.py"
    run(
        *(python.with_name("mmkd"), "train", f"mmkd::{CONFIG}", "--cfg-options"),
        f"custom_hooks.0.teacher.checkpoint={tmp_path / 'teacher.pth'}",
        *("train_cfg.max_epochs=1", "train_dataloader.batch_size=1297"),
        *("default_hooks.logger.interval=1", "default_hooks.checkpoint.interval=1"),
        cwd=folder,
    )
    work_dir = folder / "work_dirs" / Path(CONFIG).stem
    weights = torch.load(work_dir / "epoch_1.pth", weights_only=False)
    assert weights["meta"]["iter"] == 1
    assert {"state_dict", "mmkd"} <= weights.keys()
    [logged] = work_dir.glob("*/vis_data/scalars.json")
    assert "loss_distill_feature" in json.loads(logged.read_text().splitlines()[0])
