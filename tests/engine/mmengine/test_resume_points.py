"""A run goes on from the newest checkpoint that was written to its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from helpers.toy import checkpoint_of, differences, distill, toy_config, train
from mmkd.engine.mmengine.resume_points import go_on_from_newest, whole_checkpoints


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints, of which the last is the newest."""
    for epoch in (1, 2, 3):
        file = tmp_path / f"epoch_{epoch}.pth"
        torch.save(dict(epoch=epoch, weights=torch.arange(1000)), file)
        os.utime(file, (epoch, epoch))
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_3.pth"))
    torch.save({}, tmp_path / "best_accuracy_epoch_2.pth")
    return tmp_path


def cut(file: Path) -> None:
    """As a process leaves it that is killed while it saves."""
    os.truncate(file, file.stat().st_size // 2)


def resumed_from(work_dir: Path, **settings: object) -> str | None:
    config = Config(dict(work_dir=str(work_dir), resume=True, load_from=None, **settings))
    go_on_from_newest(config)
    assert config.resume == (config.load_from is not None)
    return config.load_from and Path(config.load_from).name


def test_as_it_was_written(folder: Path) -> None:
    assert resumed_from(folder) == "epoch_3.pth"
    # The one that is named, though others are newer: they may be another run's.
    (folder / "last_checkpoint").write_text("/moved/since/epoch_2.pth")
    assert resumed_from(folder) == "epoch_2.pth"


@pytest.mark.parametrize("content", [b"", b"epoch", b"\xff\xfe", b"x\0y", None])
def test_a_pointer_that_names_nothing(folder: Path, content: bytes | None) -> None:
    pointer = folder / "last_checkpoint"
    pointer.unlink() if content is None else pointer.write_bytes(content)
    assert resumed_from(folder) == "epoch_3.pth"


def test_damaged_checkpoints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut(folder / "epoch_3.pth")
    assert resumed_from(folder) == "epoch_2.pth"
    assert f"{folder / 'epoch_3.pth'} is damaged" in capsys.readouterr().out
    content = bytearray((folder / "epoch_2.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "epoch_2.pth").write_bytes(content)
    assert [file.name for file in whole_checkpoints(folder)] == ["epoch_1.pth"]
    (folder / "epoch_1.pth").write_bytes(b"")
    assert resumed_from(folder) is None
    assert "holds no whole checkpoint to resume from" in capsys.readouterr().out


def test_where_nothing_is_asked_or_found(folder: Path, tmp_path: Path) -> None:
    assert resumed_from(tmp_path / "new") is None
    named = Config(dict(work_dir=str(folder), resume=True, load_from="mine.pth"))
    go_on_from_newest(named)
    assert (named.resume, named.load_from) == (True, "mine.pth")
    plain = Config(dict(work_dir=str(folder), resume=False, load_from=None))
    go_on_from_newest(plain)
    assert (plain.resume, plain.load_from) == (False, None)


def test_checkpoints_in_a_folder_of_their_own(folder: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / "logs" / folder.name
    work_dir.mkdir(parents=True)
    (work_dir / "last_checkpoint").touch()
    hooks = dict(checkpoint=dict(out_dir=str(folder.parent)))
    assert resumed_from(work_dir, default_hooks=hooks) == "epoch_3.pth"


def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path, teacher: dict) -> None:
    """Its newest checkpoint is cut, and the pointer empty."""
    whole = train(toy_config(tmp_path, **distill(teacher)))
    killed = train(toy_config(tmp_path, **distill(teacher)))
    work_dir = Path(killed.work_dir)
    cut(work_dir / "epoch_2.pth")
    (work_dir / "last_checkpoint").write_text("")
    again = toy_config(tmp_path, **distill(teacher), resume=True)
    again.work_dir = str(work_dir)
    go_on_from_newest(again)
    ours, expected = (checkpoint_of(each, "epoch_2.pth") for each in (train(again), whole))
    for key in ("state_dict", "optimizer", "mmkd"):
        assert not differences(ours[key], expected[key])
