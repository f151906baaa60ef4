"""A Runner resumes, loads and tests without executing what is pickled in a checkpoint."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader, Runner

from helpers.toy import VALIDATION, ToyModel, checkpoint_of, differences, toy_config, train
from mmkd.engine.mmengine.safe_checkpoints import checkpoints_as_data, read_checkpoint
from mmkd.errors import InputError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runner = train(toy_config(tmp_path_factory.mktemp("trained"), **VALIDATION))
    return Path(runner.work_dir) / "epoch_1.pth"


class Executed:
    """Leaves a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.trace}",)


@MODELS.register_module()
class Initialised(ToyModel):
    """As MMDetection's backbones are by ``init_cfg``."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.init_cfg = dict(type="Pretrained", checkpoint=checkpoint)


class Got:
    """What a log buffer's pickle does with its methods, and another's could do with anything."""

    def __reduce__(self) -> tuple:
        return getattr, (HistoryBuffer, "__init__")


def spoil(checkpoint: Path, file: Path, **entries: Any) -> str:
    torch.save({**torch.load(checkpoint, weights_only=False), **entries}, file)
    return str(file)


def test_all_that_a_runner_writes_comes_back(trained: Path) -> None:
    """Log buffers with their types included: a resumed run logs smoothed values."""
    found, expected = read_checkpoint(trained), torch.load(trained, weights_only=False)
    buffers = found["message_hub"].pop("log_scalars")
    stock = expected["message_hub"].pop("log_scalars")
    assert not differences(found, expected)
    assert found["state_dict"]._metadata == expected["state_dict"]._metadata
    assert list(buffers) == list(stock) and len(stock) > 3
    for name, buffer in stock.items():
        assert type(buffers[name]) is HistoryBuffer
        for ours, theirs in zip(buffers[name].data, buffer.data, strict=True):
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
        assert buffers[name].max_length == buffer.max_length
        assert buffers[name].statistics("mean", 3) == buffer.statistics("mean", 3)


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.1),
        np.int32(-3),
        np.bool_(True),
        np.str_("text"),
        np.arange(12, dtype=">i2").reshape(3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([[True, False]]),
        np.zeros((0, 2), np.float32),
    ],
    ids=repr,
)
def test_numpy_values(value: Any, tmp_path: Path) -> None:
    torch.save(OrderedDict(value=(value, [value])), tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth")
    for each in (found["value"][0], found["value"][1][0]):
        assert type(each) is type(value) and np.asarray(each).dtype == value.dtype
        assert np.array_equal(each, value)


def test_numpy_objects_are_refused(tmp_path: Path) -> None:
    torch.save(np.array([dict(), None]), tmp_path / "x.pth")
    with pytest.raises(InputError, match="numpy values of type 'O8'"):
        read_checkpoint(tmp_path / "x.pth")


def test_no_attribute_is_looked_up(tmp_path: Path) -> None:
    torch.save(dict(got=Got()), tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth") == dict(got=None)


@pytest.mark.parametrize("how", ["resume", "load_from", "init_cfg", "test"])
def test_a_hostile_checkpoint(how: str, trained: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    file = spoil(trained, tmp_path / "evil.pth", extra=Executed(trace))
    settings: dict[str, Any] = dict(load_from=file, resume=how == "resume")
    if how == "init_cfg":
        settings = dict(model=dict(type="Initialised", checkpoint=file))
    if how == "test":
        settings |= {f"test{key[3:]}": value for key, value in VALIDATION.items()}
        settings["test_cfg"] = dict(type="TestLoop")
    runner = Runner.from_cfg(toy_config(tmp_path, **settings))
    with checkpoints_as_data(), pytest.raises(InputError, match=r"evil\.pth .* not executed") as at:
        runner.test() if how == "test" else runner.train()
    assert not trace.exists()
    assert "\n" not in str(at.value) and "add_safe_globals" not in str(at.value)
    assert "posix.system" in str(at.value) and "weights_only" not in str(at.value)


def test_a_config_in_the_checkpoint_is_not_run(trained: Path, tmp_path: Path) -> None:
    """A Runner that resumes executes ``meta['config']`` as Python."""
    trace = tmp_path / "trace"
    meta = torch.load(trained, weights_only=False)["meta"]
    meta["config"] = f"import os\nos.system('touch {trace}')\n"
    file = spoil(trained, tmp_path / "evil.pth", meta=meta)
    with checkpoints_as_data():
        train(toy_config(tmp_path, load_from=file, resume=True))
    assert not trace.exists()
    train(toy_config(tmp_path, load_from=file, resume=True))
    assert trace.exists()


def test_a_resumed_run_is_the_same(trained: Path, tmp_path: Path) -> None:
    settings = dict(load_from=str(trained), resume=True, **VALIDATION)
    with checkpoints_as_data():
        ours = checkpoint_of(train(toy_config(tmp_path, **settings)), "epoch_2.pth")
    theirs = checkpoint_of(train(toy_config(tmp_path, **settings)), "epoch_2.pth")
    for key in ("state_dict", "optimizer"):
        assert not differences(ours[key], theirs[key])
    left, right = (each["message_hub"]["log_scalars"] for each in (ours, theirs))
    assert len(left["train/loss"].data[0]) == len(right["train/loss"].data[0]) == 8


def test_allowed_pickles_are_announced(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace"
    file = spoil(trained, tmp_path / "mine.pth", extra=Executed(trace))
    runner = Runner.from_cfg(toy_config(tmp_path, load_from=file, log_level="INFO"))
    with checkpoints_as_data(allow_pickle=True):
        runner.load_or_resume()
    assert trace.exists()
    assert f"{file}: executing what is pickled in it" in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], r"is no checkpoint, or a damaged one"),
        (lambda content: b"", r"is no checkpoint, or a damaged one"),
        (lambda content: b"no checkpoint", r"is no checkpoint"),
        (lambda content: pickle.dumps({"a": 1}), r"is no checkpoint"),
    ],
)
def test_a_damaged_file(
    damage: Callable[[bytes], bytes], message: str, trained: Path, tmp_path: Path
) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(damage(trained.read_bytes()))
    with pytest.raises(InputError, match=rf"x\.pth {message}") as caught:
        read_checkpoint(file)
    assert "\n" not in str(caught.value)


def test_others_load_as_before(trained: Path, tmp_path: Path) -> None:
    """A data set of a user's own reads its files by torch.load, meanwhile and afterwards."""
    file = spoil(trained, tmp_path / "mine.pth", extra=Executed(tmp_path / "trace"))
    stock, load = CheckpointLoader.load_checkpoint, torch.load
    with checkpoints_as_data():
        assert torch.load is load
        assert torch.load(file, weights_only=False)["extra"] == 0
    assert CheckpointLoader.load_checkpoint == stock
