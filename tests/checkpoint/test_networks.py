"""Networks that were pickled as a whole, by Ultralytics and the YOLOv5 repository."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from helpers.original_yolov5 import architecture, make_original, save_original
from mmkd.checkpoint import read_weights

SMALL = architecture(width=1 / 16)


@pytest.mark.parametrize(
    ("version", "ema", "name"),
    [(6, False, "Model"), (6, True, "Model"), (7, True, "DetectionModel")],
)
def test_original_yolov5(version: int, ema: bool, name: str, tmp_path: Path) -> None:
    model = make_original(SMALL)
    read = read_weights(save_original(tmp_path / "best.pt", model, version, ema))
    expected = model.half().state_dict()
    assert list(read.weights) == list(expected)
    assert all(torch.equal(read.weights[key], value) for key, value in expected.items())
    network = read.network
    assert network is not None
    assert network.type_name == f"models.yolo.{name}"
    assert network.attribute("yaml") == SMALL
    classes = [f"class {index}" for index in range(80)]
    assert network.attribute("names") == (dict(enumerate(classes)) if version == 7 else classes)
    assert network.modules["model.9.cv1.act"].name == "torch.nn.modules.activation.SiLU"
    assert network.attribute("kernel_size", "model.9.m") == 5
    assert "models" not in sys.modules


def test_a_class_that_others_have_allowed_is_not_built(tmp_path: Path) -> None:
    """Ultralytics registers the classes of a file that it has read for the whole process."""
    built: list[str] = []

    class Noisy(nn.SiLU):
        def __setstate__(self, state: Any) -> None:
            built.append("built")

    file = save_original(tmp_path / "best.pt", make_original(SMALL))
    entry = (Noisy, "torch.nn.modules.activation.SiLU")
    torch.serialization.add_safe_globals([entry])
    try:
        read = read_weights(file)
        assert entry in torch.serialization.get_safe_globals()
    finally:
        torch.serialization.clear_safe_globals()
    assert built == [] and len(read.weights) == 349


def test_buffers_that_are_not_kept(tmp_path: Path) -> None:
    model = make_original(SMALL)
    model.model[0].register_buffer("passing", torch.zeros(2), persistent=False)
    read = read_weights(save_original(tmp_path / "best.pt", model))
    assert list(read.weights) == list(model.state_dict())


def test_modules_without_end(tmp_path: Path) -> None:
    model = make_original(SMALL)
    file = save_original(tmp_path / "best.pt", model)
    # Two names for each of 30 modules make 2 to the 30 paths.
    inner: nn.Module = nn.SiLU()
    for _ in range(30):
        inner = nn.Sequential(inner, inner)
    model.model[0].act = inner
    save_original(file, model)
    with pytest.raises(ValueError, match="its network holds more modules than any"):
        read_weights(file)
    looping = nn.Sequential(nn.Linear(1, 1))
    looping.add_module("again", looping)
    torch.save(dict(model=looping), file)
    with pytest.raises(ValueError, match="its network holds more modules than any"):
        read_weights(file)


def test_values_without_end(tmp_path: Path) -> None:
    lists: list[Any] = [1]
    for _ in range(60):
        lists = [lists, lists]
    model = make_original({**SMALL})
    model.yaml = {**SMALL, "extra": lists}
    read = read_weights(save_original(tmp_path / "best.pt", model))
    assert read.network is not None
    assert read.network.attribute("yaml") is None
    assert read.network.attribute("names") is not None


class _Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return exec, (f"open({str(self.marker)!r}, 'w')",)

    def __deepcopy__(self, memo: Any) -> _Runs:
        return self


@pytest.mark.parametrize("place", ["names", "act", "beside"])
def test_a_hostile_one_is_refused_without_torch_s_advice(place: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    model = make_original(SMALL)
    if place == "names":
        model.names = _Runs(marker)
    elif place == "act":
        model.model[0].act.extra = _Runs(marker)
    file = save_original(tmp_path / "best.pt", model)
    if place == "beside":
        torch.save(dict(model=nn.Linear(1, 1), opt=_Runs(marker)), file)
    with pytest.raises(ValueError, match="not executed") as raised:
        read_weights(file)
    text = str(raised.value)
    assert "exec" in text and str(file) in text and "\n" not in text
    for advice in ("weights_only", "safe_globals", "torch.load"):
        assert advice not in text
    assert not marker.exists()


# Tricks of a pickle's own -----------------------------------------------------------------


def _text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def _with_pickle(file: Path, content: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    """A torch file of one tensor whose pickle is replaced."""
    torch.save({"w": torch.arange(4.0)}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(name, content if name.endswith("data.pkl") else data)
    return file


_SILU = b"ctorch.nn.modules.activation\nSiLU\n"
_GETATTR = b"c__builtin__\ngetattr\n"


@pytest.mark.parametrize(
    "pickled",
    [
        # Attributes of a stand-in's, by which one would reach its class, and from there anything.
        _GETATTR + _SILU + _text("__init__") + b"\x86R" + b")R",
        # A state for a class, and one for a function.
        _SILU + b"}" + _text("__new__") + _SILU + b"sb",
        _GETATTR + b"}" + _text("__code__") + b"Nsb",
        # An entry of a stand-in's.
        _SILU + b")\x81" + _text("x") + b"K\x01s",
        # Another protocol's way to name a class.
        _text("os") + _text("system") + b"\x93",
        # A persistent id that is no tensor's, and one within another.
        _text("ls") + b"Q",
        b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + b"(" + _text("storage") + b"tQtQ",
        # The registry of copied classes.
        b"\x82\x01",
        # Memory that the file does not fill.
        b"cbuiltins\nbytearray\n" + b"\x8a\x05\x00\x00\x00\x00\x10" + b"\x85R",
        b"c__builtin__\nbytearray\n" + b"\x8a\x05\x00\x00\x00\x00\x10" + b"\x85R",
    ],
)
def test_no_trick_gets_anywhere(pickled: bytes, tmp_path: Path) -> None:
    file = _with_pickle(tmp_path / "evil.pt", b"\x80\x02}" + _text("w") + pickled + b"s.")
    with pytest.raises(ValueError, match=r"evil\.pt (is no checkpoint|holds no weights)") as raised:
        read_weights(file)
    for advice in ("weights_only", "safe_globals", "torch.load", "\n"):
        assert advice not in str(raised.value)


def test_a_view_that_repeats_few_values(tmp_path: Path) -> None:
    file = tmp_path / "large.pt"
    torch.save({"w": torch.zeros(1).expand(10**6, 10**6)}, file)
    assert file.stat().st_size < 10_000
    with pytest.raises(ValueError, match="w claims more than it holds"):
        read_weights(file)


def test_a_compressed_archive_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pt"
    torch.save({"w": torch.zeros(10**6)}, file)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match=r"bomb\.pt is no .*: its parts claim 40\d+ bytes, and"):
        read_weights(file)


class Large:
    """A module of any size out of a few bytes, where it is built."""

    def __reduce__(self) -> tuple:
        return nn.Linear, (3, 3)


def test_a_module_with_arguments_is_refused(tmp_path: Path) -> None:
    torch.save(dict(weight=torch.ones(2), model=Large()), tmp_path / "x.pt")
    with pytest.raises(ValueError, match="asks for more than weights"):
        read_weights(tmp_path / "x.pt")
