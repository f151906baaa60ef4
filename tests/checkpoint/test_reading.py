from __future__ import annotations

import hashlib
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from safetensors.torch import save_file
from torch import Tensor

from mmkd.checkpoint import read_weights

WEIGHTS = {"backbone.conv.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(2)}


def _assert_weights(found: dict[str, Tensor]) -> None:
    assert list(found) == list(WEIGHTS)
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


# What is read


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files(tmp_path: Path, suffix: str, zipped: bool) -> None:
    file = tmp_path / f"weights{suffix}"
    torch.save(WEIGHTS, file, _use_new_zipfile_serialization=zipped)
    _assert_weights(read_weights(file).weights)


def test_safetensors(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file(WEIGHTS, file)
    _assert_weights(dict(sorted(read_weights(file).weights.items())))


@pytest.mark.parametrize("name", ["state_dict", "model", "module"])
def test_containers(tmp_path: Path, name: str) -> None:
    file = tmp_path / "weights.pth"
    other = dict(optimizer=dict(state={0: dict(step=torch.tensor(1.0))}), epoch=3)
    torch.save({**other, name: OrderedDict(WEIGHTS)}, file)
    _assert_weights(read_weights(file).weights)


def test_the_prefix_of_data_parallel_is_dropped_once(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"module.a": torch.zeros(1), "module.module.b": torch.zeros(2)}, file)
    assert list(read_weights(file).weights) == ["a", "module.b"]


def test_what_is_no_tensor_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({**WEIGHTS, "epoch": 3, "name": "r50", "nested": {"x": torch.zeros(1)}}, file)
    _assert_weights(read_weights(file).weights)


def test_digest_and_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    # Larger than the pieces in which Python 3.10 reads it.
    torch.save({"large": torch.zeros(300_000)}, file)
    read = read_weights(str(file))
    assert read.file == file
    assert read.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_digest_on_python_3_10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"large": torch.zeros(300_000)}, file)
    monkeypatch.delattr(hashlib, "file_digest", raising=False)
    assert read_weights(file).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(WEIGHTS, tmp_path / "weights.pth")
    _assert_weights(read_weights("~/weights.pth").weights)


def test_tensors_arrive_on_the_cpu(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(WEIGHTS, file)
    assert all(tensor.device.type == "cpu" for tensor in read_weights(file).weights.values())


# MMEngine's own checkpoints


def _as_runner_saves() -> dict[str, Any]:
    """What Runner.save_checkpoint writes, with every kind of value that ends up in it."""
    hub = MessageHub("test_checkpoint")
    hub.update_scalars({"train/loss": 1.5, "train/lr": np.float64(0.01)})
    hub.update_scalar("val/accuracy", torch.tensor(0.5))
    hub.update_info("iter", 10)
    hub.update_info("best", np.float32(0.25))
    hub.update_info("names", np.array(["cat", "dog"]))
    hub.update_info("mask", np.array([True, False]))
    hub.update_info("objects", np.array([None, "x"], dtype=object))
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    return dict(
        meta=dict(
            epoch=1,
            cfg="model = dict()",
            seed=np.int64(3),
            dataset_meta=dict(classes=("a", "b"), palette=[(1, 2, 3)]),
        ),
        state_dict=OrderedDict(WEIGHTS),
        message_hub=hub.state_dict(),
        log=dict(buffer=buffer, count=np.uint8(4), scores=np.zeros((2, 3), dtype=np.float16)),
        optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1).state_dict(),
        param_schedulers=[dict(last_step=3, factors=np.linspace(0, 1, 3))],
    )


def test_a_runner_s_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "epoch_1.pth"
    torch.save(_as_runner_saves(), file)
    assert b"HistoryBuffer" in zipfile.ZipFile(file).read("epoch_1/data.pkl")
    _assert_weights(read_weights(file).weights)


@pytest.mark.parametrize("names", [("numpy._core", "numpy.core"), ("numpy.core", "numpy._core")])
def test_either_of_numpy_s_spellings(tmp_path: Path, names: tuple[str, str]) -> None:
    file = tmp_path / "epoch_1.pth"
    torch.save(_as_runner_saves(), file)
    old, new = (f"c{name}.multiarray\n".encode() for name in names)
    _rewrite_pickle(file, lambda data: data.replace(old, new))
    _assert_weights(read_weights(file).weights)


def test_reading_builds_no_log_buffer(tmp_path: Path) -> None:
    """One that is built adds its pickled methods to its class."""
    file = tmp_path / "epoch_1.pth"
    HistoryBuffer._statistics_methods["of the file"] = HistoryBuffer.mean
    try:
        torch.save(_as_runner_saves(), file)
    finally:
        del HistoryBuffer._statistics_methods["of the file"]
    _assert_weights(read_weights(file).weights)
    assert "of the file" not in HistoryBuffer._statistics_methods


# What is not executed


def _rewrite_pickle(file: Path, rewrite: Any) -> None:
    """Replaces the pickle inside a torch file, leaving the tensors' bytes alone."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            archive.writestr(name, rewrite(data) if name.endswith("data.pkl") else data)


class _Opens:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused(tmp_path: Path, suffix: str, zipped: bool) -> None:
    file, marker = tmp_path / f"evil{suffix}", tmp_path / "marker"
    torch.save(
        dict(state_dict=WEIGHTS, meta=_Opens(marker)), file, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(ValueError, match=r"not executed: .*open.*allow_pickle=True beside 'checkp"):
        read_weights(file)
    assert not marker.exists()


def test_a_bare_malicious_pickle_is_refused(tmp_path: Path) -> None:
    file, marker = tmp_path / "evil.pth", tmp_path / "marker"
    file.write_bytes(pickle.dumps(_Opens(marker)))
    with pytest.raises(ValueError, match="is no checkpoint"):
        read_weights(file)
    assert not marker.exists()


def test_what_is_allowed_leads_nowhere(tmp_path: Path) -> None:
    """Log buffers are pickled with getattr, from which ``exec`` is three steps away.

    Where HistoryBuffer and getattr were themselves allowed, this file would run its code: it
    puts an object whose ``array`` is ``exec`` in numpy's place in HistoryBuffer's module, and
    builds a buffer of the code.
    """

    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    def attribute(owner: bytes, name: str) -> bytes:
        return b"cbuiltins\ngetattr\n" + owner + text(name) + b"\x86R"

    file, marker = tmp_path / "evil.pth", tmp_path / "marker"
    code = text(f"open({str(marker)!r}, 'w')")
    buffer = b"cmmengine.logging.history_buffer\nHistoryBuffer\n"
    module = attribute(attribute(buffer, "__init__"), "__globals__")
    execute = attribute(attribute(b"cbuiltins\ngetattr\n", "__self__"), "exec")
    fake_numpy = buffer + b")\x81" + b"}" + text("array") + execute + b"sb"
    evil = b"\x80\x02" + module + text("np") + fake_numpy + b"s" + buffer + code * 2 + b"\x86R."
    torch.save(WEIGHTS, file)
    _rewrite_pickle(file, lambda data: evil)
    history_buffer = sys.modules[HistoryBuffer.__module__]
    try:
        with pytest.raises(ValueError, match="not executed"):
            read_weights(file)
        assert history_buffer.np is np
    finally:
        history_buffer.np = np
    assert not marker.exists()


def test_the_opt_out_executes(tmp_path: Path) -> None:
    file, marker = tmp_path / "trusted.pth", tmp_path / "marker"
    torch.save(dict(state_dict=WEIGHTS, meta=_Opens(marker)), file)
    _assert_weights(read_weights(file, allow_pickle=True).weights)
    assert marker.exists()


def test_the_allowance_ends_with_the_call(tmp_path: Path) -> None:
    file = tmp_path / "epoch_1.pth"
    torch.save(_as_runner_saves(), file)
    before = torch.serialization.get_safe_globals()
    read_weights(file)
    assert set(torch.serialization.get_safe_globals()) == set(before)


# What is no checkpoint


def test_a_missing_file() -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: nowhere\.pth"):
        read_weights("nowhere.pth")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_weights(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"hello, world", b"<html></html>", bytes(range(256)) * 4, b"PK\3\4 damaged"]
)
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_other_files(tmp_path: Path, suffix: str, content: bytes, allow_pickle: bool) -> None:
    file = tmp_path / f"other{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"other{suffix} is no checkpoint, or") as raised:
        read_weights(file, allow_pickle=allow_pickle)
    assert not (allow_pickle and "allow_pickle" in str(raised.value))


def test_a_truncated_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(WEIGHTS, file)
    file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(ValueError, match=r"weights.pth is no checkpoint, or a damaged one"):
        read_weights(file)


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"epoch": 1}, [torch.zeros(1)], 3])
def test_files_without_weights(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "empty.pth"
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"holds no weights \(looked at its top and under"):
        read_weights(file)


# What is no regular file


@pytest.mark.parametrize("allow_pickle", [False, True])
def test_a_pipe_and_a_device_are_refused_at_once(tmp_path: Path, allow_pickle: bool) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for file in (tmp_path / "pipe.pth", Path("/dev/zero")):
        with pytest.raises(ValueError, match=rf"{file.name}: .* found a device or a pipe"):
            read_weights(file, allow_pickle=allow_pickle)


@pytest.mark.parametrize("name", ["a\0b.pth", "x" * 300, "loop.pth"])
def test_paths_that_cannot_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.pth").symlink_to(tmp_path / "loop.pth")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_weights(tmp_path / name)
