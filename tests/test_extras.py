"""Without the packages of the extras: the core works, and all else names what it needs."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

import pytest

import mmkd
from helpers.hidden_packages import run_without
from mmkd.errors import InputError
from mmkd.extras import MissingExtraError, extra, installation

ROOT = Path(__file__).parents[1]
# Import names of what only extras ask for, and that nothing else brings.
OPTIONAL = (
    *("mmcv", "mmdet", "mmpretrain", "timm", "ultralytics", "pycocotools", "joblib", "scipy"),
    *("sklearn", "matplotlib", "plotly", "faster_coco_eval"),
)

CORE = """
import torch
import mmkd
from mmengine.registry import DATASETS, HOOKS, MODELS

torch.manual_seed(0)
distiller = mmkd.FeatureDistiller(8, 16)
assert distiller(torch.randn(4, 8), torch.randn(4, 16)).isfinite()
assert HOOKS.get("mmkd.DistillHook") is mmkd.DistillHook
assert DATASETS.get("mmkd.SeededSubset") is not None
network = MODELS.build(dict(type="mmkd.CIFARResNet", depth=8))
assert network(torch.randn(1, 3, 32, 32))[-1].shape == (1, 64, 8, 8)
"""

MISSING = """
import json
from importlib import import_module

from mmengine.registry import DATASETS, MODELS
from typer.testing import CliRunner

from mmkd.analysis.classifier_alignment import pearson_correlation
from mmkd.cli import app

parts = {
    "head": lambda: MODELS.build(dict(type="mmkd.ConnectorClsHead")),
    "digits": lambda: DATASETS.build(dict(type="mmkd.HandwrittenDigits", split="train")),
    "correlation": lambda: pearson_correlation([1, 2, 3], [1, 3, 2]),
    "evaluation": lambda: import_module("mmkd.evaluation"),
}
found = {}
for name, build in parts.items():
    try:
        build()
    except ImportError as error:
        found[name] = [type(error).__name__, str(error)]
for line in (
    "eval a.json b.json",
    "report x",
    "compare config.py --out o",
    "demo --out o",
    "data digits --out o",
    "yolo train model=yolov5n.yaml teacher=None",
):
    result = CliRunner().invoke(app, line.split())
    found["mmkd " + line] = [result.exit_code, result.stderr]
print(json.dumps(found))
"""


def test_the_core_needs_no_extra() -> None:
    run_without(OPTIONAL, CORE)


def test_every_part_names_its_extra() -> None:
    found = json.loads(run_without(OPTIONAL, MISSING).splitlines()[-1])
    expected = {
        "head": ("MissingExtraError", "mmpretrain"),
        "digits": ("MissingExtraError", "demo"),
        "correlation": ("MissingExtraError", "mmpretrain"),
        "evaluation": ("MissingExtraError", "eval"),
        "mmkd eval": (2, "eval"),
        "mmkd report": (2, "report"),
        "mmkd compare": (2, "report"),
        "mmkd demo": (2, "demo"),
        "mmkd data digits": (2, "demo"),
        "mmkd yolo train": (2, "yolo"),
    }
    for name, (kind, message) in found.items():
        start = next(key for key in expected if name.startswith(key))
        end, needed = expected.pop(start)
        assert kind == end, (name, message)
        assert message.rstrip().endswith(installation(needed)), (name, message)
        if kind == 2:
            assert message.startswith(f"{start}: ") and message.count("\n") == 1
    assert not expected


def test_a_config_of_a_package_that_is_missing() -> None:
    code = """
from mmengine.config import Config
from mmkd.runs.mmengine.recipes import MMRecipe

for scope in ("mmdet", "mmpretrain"):
    try:
        MMRecipe(Config(dict(default_scope=scope))).train(None, None)
    except ImportError as error:
        print(error)
"""
    first, second = run_without(("mmdet", "mmpretrain"), code).splitlines()[-2:]
    assert first.startswith("a config of mmdet's needs the extra 'mmdet'")
    assert second.startswith("a config of mmpretrain's needs the extra 'mmpretrain'")


def test_the_message() -> None:
    with pytest.raises(MissingExtraError) as error, extra("demo", "mmkd demo"):
        import mmkd_needs_this  # noqa: F401
    assert str(error.value) == (
        "mmkd demo needs the extra 'demo' (No module named 'mmkd_needs_this'): "
        f"{installation('demo')}"
    )
    assert isinstance(error.value, InputError) and isinstance(error.value, ImportError)


class Installed:
    """A distribution, by what its installer wrote."""

    def __init__(self, origin: dict | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.origin and json.dumps(self.origin)


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (
            dict(url="file:///home/me/my%20clone", dir_info=dict(editable=True)),
            "pip install -e '/home/me/my clone[yolo]'",
        ),
        (dict(url="file:///src", dir_info={}), "pip install 'mmkd[yolo] @ file:///src'"),
        (
            dict(url="file:///dist/mmkd-0.1.0-py3-none-any.whl", archive_info={}),
            "pip install 'mmkd[yolo] @ file:///dist/mmkd-0.1.0-py3-none-any.whl'",
        ),
        (
            dict(url="https://host.example/m.git", vcs_info=dict(vcs="git", commit_id="abc")),
            "pip install 'mmkd[yolo] @ git+https://host.example/m.git@abc'",
        ),
        (None, "pip install 'mmkd[yolo]'"),
    ],
)
def test_an_extra_comes_from_where_mmkd_came(
    monkeypatch: pytest.MonkeyPatch, origin: dict | None, command: str
) -> None:
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed(origin))
    assert installation("yolo") == command


def test_an_extra_of_a_clone_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.distribution", missing)
    assert installation("yolo") == f"pip install -e '{ROOT}[yolo]'"


def test_no_text_advises_an_index_that_lacks_mmkd() -> None:
    """It is published nowhere yet."""
    texts = [*ROOT.glob("*.md"), *ROOT.glob("configs/**/*.md"), *ROOT.glob("mmkd/**/*.py")]
    assert len(texts) > 100
    pattern = re.compile(r"pip install '?mmkd\[(?!\{)")
    assert [file.name for file in texts if pattern.search(file.read_text("utf-8"))] == []


def test_the_outermost_speaks() -> None:
    message = r"mmkd demo needs .* \(No module named 'none'\)"
    with (
        pytest.raises(MissingExtraError, match=message),
        extra("demo", "mmkd demo"),
        extra("eval", "COCO's evaluation"),
    ):
        import none  # noqa: F401


def test_mmkds_own_modules_are_no_extra() -> None:
    message = r"^No module named 'mmkd\.none'$"
    with pytest.raises(ModuleNotFoundError, match=message), extra("demo", "mmkd demo"):
        import mmkd.none  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name"), extra("demo", "mmkd demo"):
        from mmkd.errors import none  # noqa: F401


def test_extras_that_are_asked_for_exist() -> None:
    source = Path(mmkd.__file__).parent
    text = "".join(file.read_text() for file in source.rglob("*.py"))
    asked = set(re.findall(r"\bextra\(\s*\"([\w-]+)\"", text))
    provided = set(metadata("mmkd").get_all("Provides-Extra") or [])
    assert {"eval", "report", "demo", "mmdet", "mmpretrain", "yolo", "fast-eval"} == asked
    assert asked < provided
    in_all = {name for name in map(_name, requires("mmkd") or []) if name}
    assert {"ultralytics", "timm", "scikit-learn", "pycocotools", "onedl-mmpretrain"} <= in_all


def _name(requirement: str) -> str | None:
    """Of a package that the extra 'all' asks for."""
    match = re.match(r"([\w-]+).*extra == 'all'", requirement)
    return match[1] if match else None
