"""Checkpoints by address: a server on this machine stands for those of the world."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from mmengine import fileio
from mmengine.fileio import LocalBackend

from mmkd.checkpoint import read_weights
from mmkd.checkpoint.downloads import downloaded
from mmkd.engine.mmengine.addresses import check_address, local_file, read_weights_of
from mmkd.engine.mmengine.teacher import MMTeacher
from mmkd.errors import InputError, MissingFileError

WEIGHTS = {"backbone.conv.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(2)}


class Handler(SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def asked() -> list[str]:
    """The paths for which the server was asked."""
    return []


@pytest.fixture
def server(tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address, with an empty cache of torch's; it has ``weights.pth``."""
    (tmp_path / "served").mkdir()
    torch.save(WEIGHTS, tmp_path / "served" / "weights.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path / "mm"))
    handler = type("Asked", (Handler,), {"asked": asked})
    serve = partial(handler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs=dict(poll_interval=0.01))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_an_address_is_downloaded_once(server: str, asked: list[str], tmp_path: Path) -> None:
    file = downloaded(f"{server}/weights.pth?download=1")
    assert file.parent == tmp_path / "cache/hub/checkpoints"
    assert file.name.endswith("-weights.pth")
    assert list(read_weights(file).weights) == list(WEIGHTS)
    assert downloaded(f"{server}/weights.pth") == file
    assert asked == ["/weights.pth?download=1"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/missing.pth", "404"), ("/", "names no file"), ("/a/..", "names no file")],
)
def test_what_cannot_be_downloaded(server: str, path: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        downloaded(f"{server}{path}")
    assert f"{server}{path}" in str(error.value) and "\n" not in str(error.value)
    assert list((tmp_path / "cache").rglob("*.*")) == []


def test_a_downloaded_file_is_not_executed(server: str, tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple:
            return exec, (f"open({str(tmp_path / 'marker')!r}, 'w')",)

    torch.save({**WEIGHTS, "extra": Runs()}, tmp_path / "served/evil.pth")
    with pytest.raises(ValueError, match=r"not executed: it names builtins\.exec"):
        read_weights_of(f"{server}/evil.pth")
    assert not (tmp_path / "marker").exists()


# MMEngine's short forms ---------------------------------------------------------------------

_TABLES = {
    "torchvision": "get_torchvision_models",
    "modelzoo": "get_torchvision_models",
    "open-mmlab": "get_external_models",
    "openmmlab": "get_external_models",
    "mmcls": "get_mmcls_models",
}


@pytest.mark.parametrize("scheme", _TABLES)
def test_short_forms(server: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"net50": f"{server}/weights.pth"}
    monkeypatch.setattr(f"mmengine.runner.checkpoint.{_TABLES[scheme]}", lambda: table)
    monkeypatch.setattr("mmengine.runner.checkpoint.get_deprecated_model_names", dict)
    check_address(f"{scheme}://net50")
    found = read_weights_of(f"{scheme}://net50")
    # Those of a classifier stand for its backbone, as MMEngine takes them.
    names = ["conv.weight"] if scheme == "mmcls" else list(WEIGHTS)
    assert list(found.weights) == names
    assert torch.equal(found.weights[names[0]], WEIGHTS["backbone.conv.weight"])
    with pytest.raises(ValueError, match=rf"{scheme}:// has no 'net5' \(did you mean 'net50'\?\)"):
        check_address(f"{scheme}://net5")


def test_the_real_tables_know_these() -> None:
    for address in ("torchvision://resnet50", "open-mmlab://vgg16_caffe", "mmcls://vgg16"):
        check_address(address)


def test_a_storage_of_mmengine_s(server: str, tmp_path: Path) -> None:
    """Whatever is registered there; its own client of s3:// needs a package that few have."""

    class Storage(LocalBackend):
        def copyfile_to_local(self, source: str, target: str) -> str:
            return super().copyfile_to_local(source.replace("stored:/", str(tmp_path)), target)

    fileio.register_backend("stored", Storage, prefixes="stored", force=True)
    found = local_file("stored://served/weights.pth")
    assert found.parent == tmp_path / "mm/checkpoints" and found.name.endswith("-weights.pth")
    assert list(read_weights(found).weights) == list(WEIGHTS)
    with pytest.raises(ValueError, match=r"s3://bucket/r50\.pth could not be fetched") as error:
        local_file("s3://bucket/r50.pth")
    assert "\n" not in str(error.value)


def test_a_teacher_by_address(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def teacher(checkpoint: str) -> MMTeacher:
        settings = dict(model=dict(type="torch.nn.Linear"), checkpoint=checkpoint)
        return MMTeacher.parse("DistillHook teacher", settings)

    teacher(f"{server}/missing.pth").check()
    with pytest.raises(
        InputError, match=r"^DistillHook teacher\.checkpoint: .*missing\.pth could not be downloa"
    ):
        teacher(f"{server}/missing.pth").build([], None, torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match=r"^DistillHook teacher\.checkpoint: torchvision:// has"):
        teacher("torchvision://resnet51").check()
    with pytest.raises(MissingFileError, match=r"^DistillHook teacher\.checkpoint: no such file"):
        teacher("nowhere.pth").check()


def test_files_of_one_name_are_told_apart(server: str, asked: list[str], tmp_path: Path) -> None:
    for folder, value in (("one", 1.0), ("two", 2.0)):
        (tmp_path / "served" / folder).mkdir()
        torch.save(dict(weight=torch.tensor(value)), tmp_path / f"served/{folder}/best.pt")
        read = read_weights_of(f"{server}/{folder}/best.pt")
        assert read.weights["weight"].item() == value
    assert asked == ["/one/best.pt", "/two/best.pt"]
    # Published by its digest, it is the same file for all libraries.
    torch.save(WEIGHTS, tmp_path / "served/net-0123abcd.pth")
    shared = tmp_path / "cache/hub/checkpoints/net-0123abcd.pth"
    assert downloaded(f"{server}/net-0123abcd.pth") == shared
