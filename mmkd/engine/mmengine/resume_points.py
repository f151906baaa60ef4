"""From which of a run's checkpoints it goes on."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

__all__ = ["go_on_from_newest", "whole_checkpoints"]

_POINTER = "last_checkpoint"


def whole_checkpoints(folder: Path) -> Iterator[Path]:
    """The checkpoints of epochs or iterations in a folder that were written to their end, newest
    first. A line is printed of each that is damaged, as a process leaves it that is killed while
    it saves."""
    files = [file for name in ("epoch_*.pth", "iter_*.pth") for file in folder.glob(name)]
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        if _is_whole(file):
            yield file
        else:
            print_log(f"{file} is damaged, or written by half: going on from one before it")


def _is_whole(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    # Damage shows in many ways.
    except Exception:
        return False


def go_on_from_newest(config: Config) -> None:
    """Names the checkpoint that a config with ``resume`` alone goes on from, if there is one.

    MMEngine takes the one that ``last_checkpoint`` names, in whatever state both are.

    Args:
        config: With ``work_dir``.
    """
    work_dir = str(config.get("work_dir") or "")
    if not config.get("resume") or config.get("load_from") or "://" in work_dir:
        return
    file = _named(Path(work_dir)) or next(whole_checkpoints(_folder(config, work_dir)), None)
    if file is None:
        print_log(f"{work_dir} holds no whole checkpoint to resume from: the training begins anew")
    config.resume = file is not None
    config.load_from = str(file) if file else None


def _named(work_dir: Path) -> Path | None:
    try:
        text = (work_dir / _POINTER).read_text().strip()
    except (OSError, ValueError):
        return None
    # By its name too: the folder may have been moved.
    named = (Path(text), work_dir / Path(text).name) if text else ()
    return next((file for file in named if file.is_file() and _is_whole(file)), None)


def _folder(config: Config, work_dir: str) -> Path:
    hook = (config.get("default_hooks") or {}).get("checkpoint") or {}
    out = hook.get("out_dir")
    return Path(out, Path(work_dir).name) if out and "://" not in out else Path(work_dir)
