"""How the stand-in is found, and what it answers for operators it does not have."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path

import mmcv
import pytest
import torch
from mmcv.utils.ext_loader import check_ops_exist

import mmkd.ops


def _finders() -> list[object]:
    return [finder for finder in sys.meta_path if type(finder).__module__ == "mmkd.ops"]


def test_install_appends_one_finder_and_imports_nothing(monkeypatch):
    ordinary = [finder for finder in sys.meta_path if finder not in _finders()]
    monkeypatch.setattr(sys, "meta_path", list(ordinary))
    imported = set(sys.modules)
    mmkd.ops.install()
    mmkd.ops.install()
    assert sys.meta_path[:-1] == ordinary
    assert [sys.meta_path[-1]] == _finders()
    assert set(sys.modules) == imported


def test_finder_answers_for_the_extension_alone():
    (finder,) = _finders()
    assert finder.find_spec("mmcv._ext_other", None) is None
    assert importlib.util.find_spec("mmcv.no_such_module") is None


def test_extension_looks_like_an_ordinary_module():
    extension = importlib.import_module("mmcv._ext")
    assert mmkd.ops.is_stand_in()
    assert check_ops_exist()
    assert extension.__spec__ is importlib.util.find_spec("mmcv._ext")
    assert extension.__spec__.name == extension.__name__ == "mmcv._ext"
    assert not hasattr(extension, "__path__")
    inspect.getmodule(extension.nms)


def test_without_install_the_extension_is_missing(monkeypatch):
    monkeypatch.delitem(sys.modules, "mmcv._ext", raising=False)
    finders = [finder for finder in sys.meta_path if finder not in _finders()]
    monkeypatch.setattr(sys, "meta_path", finders)
    assert not mmkd.ops.is_stand_in()
    assert not check_ops_exist()


def test_compiled_extension_wins(monkeypatch, tmp_path: Path):
    (tmp_path / "_ext.py").write_text("nms = 'compiled'\n")
    importlib.import_module("mmcv._ext")  # so that there is something to put back afterwards
    monkeypatch.delitem(sys.modules, "mmcv._ext")
    monkeypatch.delattr(mmcv, "_ext")
    monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    mmkd.ops.install()
    assert not mmkd.ops.is_stand_in()
    assert importlib.import_module("mmcv._ext").nms == "compiled"


def test_missing_operator_says_what_to_do():
    from mmcv.ops import box_iou_rotated

    with pytest.raises(mmkd.ops.MissingOperatorError, match="'box_iou_rotated'") as error:
        box_iou_rotated(torch.zeros(1, 5), torch.zeros(1, 5))
    assert "MMCV_WITH_OPS=1 pip install --force-reinstall" in str(error.value)
    assert "mim install mmcv" in str(error.value)
    assert isinstance(error.value, RuntimeError)


def test_environment_report_works():
    from mmcv.utils import collect_env

    report = collect_env()
    assert "not compiled" in report["MMCV Compiler"]
    assert report["MMCV CUDA Compiler"] == "not compiled"
