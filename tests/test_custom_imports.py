"""A user's own modules: imported before anything is built, by a command or a config."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from helpers.own_loss import own_modules_in, write_own_loss
from mmkd.cli import app
from mmkd.custom_imports import (
    import_again,
    import_custom,
    import_modules,
    imported_modules,
    source_files,
)
from mmkd.distiller import FeatureDistiller
from mmkd.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with own_modules_in(tmp_path):
        yield tmp_path


def value_of(loss: str) -> float:
    distiller = FeatureDistiller(2, 3, loss=dict(type=f"mmkd.{loss}"))
    return float(distiller(torch.zeros(4, 2), torch.zeros(4, 3)))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("own_losses_a.py", "own_losses_a"),
        ("own_losses_b.py", "own_losses_b.py"),
        ("deep/down/own_losses_c.py", "deep/down/own_losses_c.py"),
        ("own_package_d/losses.py", "own_package_d.losses"),
    ],
)
def test_an_own_loss_is_built(folder: Path, file: str, name: str) -> None:
    write_own_loss(folder / file)
    import_modules([name])
    assert value_of("OwnLoss") == 7
    import_modules([name])  # once more: it is registered but once
    assert source_files([name]) == [folder / file]
    [known] = imported_modules()
    assert known == (str(folder / file) if name.endswith(".py") else name)


def test_by_absolute_path_from_another_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And what lies beside the file can be imported by it."""
    other = tmp_path_factory.mktemp("other")
    (other / "beside_own_losses.py").write_text("name = 3")
    write_own_loss(other / "own_losses_e.py")
    with (other / "own_losses_e.py").open("a") as stream:
        stream.write("\nimport beside_own_losses\n")
    import_modules([str(other / "own_losses_e.py")])
    assert value_of("OwnLoss") == 7
    del sys.modules["own_losses_e"], sys.modules["beside_own_losses"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own_none", None, "no module 'own_none', neither in the current folder"),
        ("own_none.py", None, "no such file in"),
        ("own-f.py", "", "'own-f' cannot name a module"),
        ("own_f.py", "1 / 0", r"ZeroDivisionError in .*own_f\.py, line 1: division by zero"),
        ("own_g.py", "import own_none", r"ModuleNotFoundError in .*own_g\.py, line 1"),
        ("own_h.py", "x = = 1", "SyntaxError"),
        ("json.py", "", "the module 'json' is .*json.__init__.py: rename the file"),
        ("time.py", "", "the module 'time' is a part of Python"),
        (".own", None, "TypeError"),
    ],
)
def test_what_cannot_be_imported(
    folder: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(InputError, match=f"^--import {name}: .*{message}"):
        import_modules([name])
    with pytest.raises(InputError, match=f"^custom_imports {name}: "):
        import_custom(dict(imports=[name]))
    assert imported_modules() == []


def test_custom_imports_of_a_config(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_own_loss(folder / "own_losses_i.py")
    assert import_custom(None) == import_custom(dict(imports=[])) == []
    assert import_custom(dict(imports="own_losses_i")) == ["own_losses_i"]
    assert value_of("OwnLoss") == 7
    lenient = dict(imports=["own_none", "own_losses_i"], allow_failed_imports=True)
    assert import_custom(lenient) == ["own_losses_i"]
    assert "warning: custom_imports own_none: no module" in capsys.readouterr().err
    # Of the commands' option only, which no config tells.
    assert imported_modules() == []


@pytest.mark.parametrize("settings", ["own", ["own"], dict(), dict(imports=3), dict(imports=[3])])
def test_custom_imports_that_are_none(settings: Any) -> None:
    with pytest.raises(InputError, match=r"custom_imports: expected dict\(imports="):
        import_custom(settings)
    with pytest.raises(InputError, match=r"custom_imports: expected dict\(imports="):
        import_custom(dict(imports=["os"], other=1))


def test_a_process_that_unpickles_the_callback_imports_too(folder: Path) -> None:
    write_own_loss(folder / "own_losses_j.py")
    callback = import_again(["own_losses_j.py"])
    assert callback("trainer") is None
    (folder / "callback.pkl").write_bytes(pickle.dumps(callback))
    code = (
        f"import pickle; pickle.load(open({str(folder / 'callback.pkl')!r}, 'rb'))('trainer')\n"
        "from mmkd.registry import MODELS; assert 'OwnLoss' in MODELS.module_dict"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "truth.json", "found.json"],
        ["compare", "config.py", "--out", "out"],
        ["yolo", "train", "model=yolov5n.yaml", "teacher=None"],
    ],
)
def test_the_commands_import_first(folder: Path, arguments: list[str]) -> None:
    (folder / "own_k.py").write_text("open('was_here', 'w').close()")
    options = ["--import", "own_k", "--import", "own_none"]
    failed = CliRunner().invoke(app, [*arguments, *options])
    assert failed.exit_code == 2
    command = " ".join(arguments[: 1 + (arguments[0] == "yolo")])
    assert failed.stderr.startswith(f"mmkd {command}: --import own_none: no module 'own_none'")
    assert (folder / "was_here").exists() and not (folder / "out").exists()
