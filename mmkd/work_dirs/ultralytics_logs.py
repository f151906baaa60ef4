"""What Ultralytics' trainer logs into a work dir: ``args.yaml`` and ``results.csv``."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmkd.input_files import read_text
from mmkd.work_dirs.curves import TASK_LOSS, CurveBuilder, Group
from mmkd.work_dirs.dumped_config import flatten
from mmkd.work_dirs.mmengine_logs import teacher_in

__all__ = ["read_arguments", "read_console", "read_distillation", "read_results"]

_VERSIONS = re.compile(
    r"Ultralytics (?P<Ultralytics>\d\S*).* Python-(?P<Python>\S+) torch-(?P<PyTorch>\S+)"
    r" (?P<Device>.+)"
)
_TIMES = ("epoch", "time")
_MOST_VALUES = 100_000


def read_arguments(file: Path) -> dict[str, Any]:
    """Ultralytics' training arguments by dotted keys.

    Raises:
        ValueError: The file holds something else.
    """
    import yaml

    try:
        values = yaml.safe_load(read_text(file))
        _check_size(values)
        return flatten(values)
    except Exception as error:  # A damaged file fails in any way.
        reason = " ".join(str(error).split())
        raise ValueError(f"{file.name} cannot be read: {reason}") from error


def _check_size(values: Any) -> None:
    """Aliases let a few lines of YAML stand for more values than memory holds."""
    waiting, count = [values], 0
    while waiting:
        each = waiting.pop()
        count += 1
        if count > _MOST_VALUES:
            raise ValueError(f"it stands for more than {_MOST_VALUES} values")
        if isinstance(each, Mapping):
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def read_distillation(file: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Teacher and terms from the ``distill.yaml`` that mmkd's trainer leaves.

    Returns:
        What identifies the teacher, and the terms by dotted keys.

    Raises:
        ValueError: The file holds something else.
    """
    values = read_arguments(file)
    lines = values.get("teachers")
    teacher: dict[str, str] = {}
    for line in lines if isinstance(lines, list) else []:
        teacher |= teacher_in(str(line))
    terms = {key: value for key, value in values.items() if key.startswith("terms.")}
    return teacher, terms


def read_console(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Environment and teacher, as a training printed them: Ultralytics stores neither."""
    environment: dict[str, str] = {}
    teacher: dict[str, str] = {}
    for line in read_text(file).split("\n"):
        found = _VERSIONS.search(line)
        if found and not environment:
            environment = {key: value.strip() for key, value in found.groupdict().items()}
        teacher |= teacher_in(line)
    return environment, teacher


def read_results(file: Path) -> tuple[CurveBuilder, list[str]]:
    """The curves of ``results.csv``, and notes for people."""
    builder = CurveBuilder()
    header, *lines = read_text(file).split("\n")
    # What follows the last line's end is the beginning of a row.
    unreadable = bool(lines.pop()) if lines else 0
    names = [name.strip() for name in header.split(",")]
    for line in lines:
        values = _row(names, line)
        if values:
            _add(builder, values)
        else:
            unreadable += bool(line.strip())
    if not unreadable:
        return builder, []
    count = "1 row" if unreadable == 1 else f"{unreadable} rows"
    return builder, [f"{file.name}: {count} left out, unreadable"]


def _row(names: list[str], line: str) -> dict[str, float] | None:
    try:
        [texts] = csv.reader([line])
        values = dict(zip(names, map(float, texts), strict=True))
        int(values["epoch"])
    except (ValueError, KeyError, OverflowError, csv.Error):
        return None
    return values


def _add(builder: CurveBuilder, values: Mapping[str, float]) -> None:
    losses = [name for name in values if name.startswith("train/") and not _is_distilled(name)]
    if losses:
        total = sum(values[name] for name in losses)
        builder.add(TASK_LOSS, "task loss", "epoch", values["epoch"], total)
    for name, value in values.items():
        group = _group(name)
        if group is not None:
            percent = 100 * value if group == "score" else value
            builder.add(name, group, "epoch", values["epoch"], percent)


def _is_distilled(name: str) -> bool:
    # Ours, and Ultralytics' own distillation.
    return name.startswith("train/kd_") or name == "train/dis_loss"


def _group(name: str) -> Group | None:
    kind = name.partition("/")[0]
    if name in ("distill/ratio", "distill/teacher_time_share"):
        return "ratio"
    if name.startswith("distill/weight_"):
        return "weight"
    if name.startswith("distill/share_"):
        return "share"
    if kind == "distill" or _is_distilled(name):
        return "distillation"
    groups: dict[str, Group] = {
        "train": "task loss",
        "val": "task loss",
        "metrics": "score",
        "lr": "learning rate",
        "dynamics": "dynamics",
    }
    return groups.get(kind)
