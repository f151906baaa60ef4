"""What is imported, and when: in fresh processes, as users start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mmkd

HEAVY = (
    "torch",
    "mmengine",
    "mmcv",
    "mmdet",
    "mmpretrain",
    "ultralytics",
    "matplotlib",
    "numpy",
    "rich",
)


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def imported_after(code: str) -> set[str]:
    """Of the heavy packages."""
    done = python(f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))")
    return {*json.loads(done.stdout.splitlines()[-1])} & {*HEAVY}


def test_mmkd_alone_imports_none_of_them() -> None:
    assert imported_after("import mmkd; mmkd.__version__; dir(mmkd); mmkd.ops") == set()


def test_a_part_imports_what_it_needs() -> None:
    """A loss needs MMEngine's registry, but no trainer's package."""
    found = imported_after("import mmkd; mmkd.losses.LogSumLoss()")
    assert found & {"mmcv", "mmdet", "mmpretrain", "ultralytics"} == set()
    assert {"torch", "mmengine"} <= found


COMMAND = """
import sys
from mmkd.cli import main
sys.argv = ["mmkd", *{arguments}]
try:
    main()
except SystemExit as end:
    assert end.code == {status}, end.code
else:
    raise AssertionError
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 2),
        (["--help"], 0),
        (["--version"], 0),
        (["--wrong"], 2),
        (["wrong"], 2),
        (["eval", "--help"], 0),
        (["eval", "--wrong"], 2),
        (["compare", "--help"], 0),
        (["train", "--help"], 0),
        (["train"], 2),
        (["test", "config.py"], 2),
        (["report"], 2),
        (["data", "--help"], 0),
        (["yolo", "train", "--help"], 0),
        (["yolo", "train", "--epochs", "3"], 2),
        (["data", "digits", "--num-train", "none"], 2),
        (["demo", "--framework", "wrong"], 2),
    ],
)
def test_help_version_and_wrong_options_import_none_of_them(
    arguments: list[str], status: int
) -> None:
    assert imported_after(COMMAND.format(arguments=arguments, status=status)) == set()


@pytest.mark.parametrize("start", [["-m", "mmkd"], ["-c", "from mmkd.cli import main; main()"]])
def test_version(start: list[str]) -> None:
    done = subprocess.run([sys.executable, *start, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"mmkd {mmkd.__version__}\n")


def test_completion(tmp_path: Path) -> None:
    """As a shell asks for it once it is installed."""
    program = tmp_path / "mmkd"
    program.write_text("from mmkd.cli import main\nmain()\n")
    asked = {"_MMKD_COMPLETE": "complete_bash", "COMP_WORDS": "mmkd t", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, program], env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["train", "test"], done.stderr


def test_help_tells_every_command_in_a_line() -> None:
    done = subprocess.run([sys.executable, "-m", "mmkd", "--help"], capture_output=True, text=True)
    assert "Distil an object detector from a larger one" in done.stdout
    listed = done.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == [
        *("demo", "train", "test", "doctor", "eval", "report", "compare", "analyze", "data", "yolo")
    ]
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def test_the_version_is_written_once() -> None:
    """The distribution's comes from the package."""
    from importlib.metadata import version

    assert version("mmkd") == mmkd.__version__
    assert mmkd.__version__ not in Path(__file__).parents[1].joinpath("pyproject.toml").read_text()


CONFIG = """
from mmengine.config import Config
from pathlib import Path
import sys
file = Path(sys.argv[1]) / "config.py"
file.write_text("custom_imports = dict(imports=['mmkd'])")
Config.fromfile(file)
assert "mmkd.registry" not in sys.modules
from mmengine.registry import DATASETS, HOOKS, MODELS
registry = dict(DATASETS=DATASETS, HOOKS=HOOKS, MODELS=MODELS)[sys.argv[2]]
missing = [name for name in sys.argv[3:] if registry.get(f"mmkd.{name}") is None]
assert not missing, missing
"""


@pytest.mark.parametrize(
    ("registry", "names"),
    [
        ("HOOKS", ["DistillHook", "ClassifierAlignmentHook"]),
        ("DATASETS", ["HandwrittenDigits", "SeededSubset"]),
        (
            "MODELS",
            [
                *("LogSumLoss", "LinearProjector", "BatchNormalizer", "FeatureDistiller"),
                *("CIFARResNet", "ConnectorClsHead"),
            ],
        ),
    ],
)
def test_a_config_that_imports_mmkd_finds_its_classes(
    registry: str, names: list[str], tmp_path: Path
) -> None:
    python(CONFIG, str(tmp_path), registry, *names)


def test_every_public_name_resolves() -> None:
    assert set(mmkd.__all__) <= set(dir(mmkd))
    assert all(getattr(mmkd, name) is not None for name in mmkd.__all__)
    from mmkd.engine.mmengine.distill_hook import DistillHook

    assert mmkd.DistillHook is mmkd.engine.DistillHook is DistillHook


def test_a_name_that_is_none() -> None:
    with pytest.raises(AttributeError, match="module 'mmkd' has no attribute 'DistilHook'"):
        mmkd.DistilHook  # noqa: B018
    with pytest.raises(AttributeError, match=r"module 'mmkd\.engine' has no attribute 'Hook'"):
        mmkd.engine.Hook  # noqa: B018
    assert not hasattr(mmkd, "__wrapped__")
