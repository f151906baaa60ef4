"""What MMEngine's Runner logs into a work dir: one folder, named by the time, a call."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmkd.input_files import check_regular, read_text
from mmkd.work_dirs.curves import TASK_LOSS, CurveBuilder, Group, Step, number
from mmkd.work_dirs.dumped_config import flatten, read_dumped_config

__all__ = ["Session", "read_sessions", "teacher_in"]

# Metrics of MMDetection between 0 and 1, where -1 says that there was nothing to measure. Others,
# such as MMPretrain's, are taken for percent.
_SHARES = ("coco/", "lvis/", "pascal_voc/", "openimages/")
_DYNAMICS = ("classifier_distance", "mean_objective", "classifier_correlation")
_RATIOS = ("distill_ratio", "teacher_time_share")
_TIMES = ("time", "data_time", "memory", "epoch", "iter", "step")
# Of the logged environment: the first line of many, and what belongs to the run.
_NO_ENVIRONMENT = ("PyTorch compiling details", "numpy_random_seed")
# The first iterations of a run allocate memory and choose algorithms.
_WARM_UP_ENTRIES = 3
_TEACHER = re.compile(
    r"Distill(?:Hook|Callback) teacher(?:\.(?P<source>[^:\s]+))?: (?P<network>\w+)[^(]* from "
    r"(?P<checkpoint>.+) \(sha256 (?P<sha256>[0-9a-f]{64})\)"
    r"(?:.*; runs (?P<modules_run>.+) modules)?"
)


@dataclass
class Session:
    """One call of the Runner.

    Attributes:
        folder: Named by its time.
        settings: Its config by dotted keys; empty where none can be read.
        environment: Of the system, as logged at its start.
        teacher: What identifies it; empty without distillation.
        entries: Lines of ``scalars.json``, each with a finite ``step``.
        notes: For people.
    """

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    teacher: dict[str, str] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_training(self) -> bool:
        """Whether it has logged a training iteration."""
        return any("iter" in entry for entry in self.entries)

    @property
    def step_seconds(self) -> float | None:
        """Median time of a training iteration."""
        found = [number(entry.get("time")) for entry in self.entries if "iter" in entry]
        times = [each for each in found if each is not None and math.isfinite(each)]
        times = sorted(times[_WARM_UP_ENTRIES:] or times)
        return times[len(times) // 2] if times else None

    def curves(self) -> CurveBuilder:
        """All that it has logged by step."""
        builder = CurveBuilder()
        by_epoch = self.settings.get("default_hooks.logger.log_metric_by_epoch", True)
        in_epochs = "Iter" not in str(self.settings.get("train_cfg.type")) and self.settings.get(
            "train_cfg.by_epoch", True
        )
        for entry in self.entries:
            values = {k: v for k, value in entry.items() if (v := number(value)) is not None}
            if "iter" in entry:
                _add_training(builder, values)
            else:
                _add_dynamics(builder, values, "epoch" if in_epochs else "iteration")
                _add_validation(builder, values, "epoch" if by_epoch else "iteration")
        return builder


def read_sessions(folder: Path) -> list[Session]:
    """The trainings in a work dir, the oldest first; a folder that is none has no sessions.

    Calls that only tested are left out, unless there is nothing else; so are trainings which a
    later one in the same folder did not go on with.
    """
    logs = [*folder.glob("*/vis_data/scalars.json"), *folder.glob("*/vis_data/config.py")]
    places = {file.parent.parent for file in logs}
    places |= {file.parent for file in folder.glob("*/*.log") if file.stem == file.parent.name}
    sessions = [_read(place) for place in sorted(places)]
    trainings = [each for each in sessions if each.is_training]
    kept = trainings or [each for each in sessions if each.entries] or sessions[-1:]
    begun = [index for index, each in enumerate(kept) if not each.settings.get("resume")]
    return kept[begun[-1] :] if begun else kept


def _read(folder: Path) -> Session:
    session = Session(folder)
    _read_config(session)
    _read_log(session)
    scalars = folder / "vis_data" / "scalars.json"
    if scalars.is_file():
        unreadable = 0
        for line in read_text(scalars).split("\n"):
            entry = _entry(line)
            if entry:
                session.entries.append(entry)
            else:
                unreadable += bool(line)
        if unreadable:
            lines = "1 line" if unreadable == 1 else f"{unreadable} lines"
            session.notes.append(f"{folder.name}: {lines} of scalars.json left out, unreadable")
    if not session.entries:
        session.notes.append(f"{folder.name}: nothing was logged, it may have been stopped early")
    return session


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = number(entry.get("step")) if isinstance(entry, dict) else None
    return entry if step is not None and math.isfinite(step) else None


def _read_config(session: Session) -> None:
    files = [session.folder / "vis_data" / "config.py", *sorted(session.folder.parent.glob("*.py"))]
    file = next((each for each in files if each.is_file()), None)
    if file is None:
        session.notes.append(f"{session.folder.name}: no config")
        return
    try:
        settings = read_dumped_config(read_text(file))
        session.settings = flatten(settings)
        session.teacher = _teacher_settings(settings)
    except (ValueError, RecursionError) as error:
        session.notes.append(f"{file.name} of {session.folder.name} cannot be read: {error}")


def _teacher_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    hooks = settings.get("custom_hooks") or []
    for hook in hooks if isinstance(hooks, list | tuple) else []:
        is_ours = isinstance(hook, dict) and str(hook.get("type")).endswith("DistillHook")
        if is_ours and isinstance(hook.get("teacher"), dict):
            return {key: str(value) for key, value in flatten(hook["teacher"]).items()}
    return {}


def _read_log(session: Session) -> None:
    file = session.folder / f"{session.folder.name}.log"
    if not file.is_file():
        return
    check_regular(file, "a log")
    with file.open(encoding="utf-8", errors="replace") as stream:
        in_environment = False
        for line in stream:
            if "Epoch(train)" in line or "Iter(train)" in line:
                return
            if line.startswith("System environment:"):
                in_environment = True
            elif line.startswith(("Runtime environment:", "-----")):
                in_environment = False
            elif in_environment and line.startswith("    "):
                key, separator, value = line.strip().partition(": ")
                if separator and key not in _NO_ENVIRONMENT:
                    session.environment[key] = value
            session.teacher |= teacher_in(line)


def teacher_in(line: str) -> dict[str, str]:
    """What a line of a log tells about a teacher: network, checkpoint, its SHA-256."""
    found = _TEACHER.search(line)
    if not found:
        return {}
    prefix = f"{found['source']}." if found["source"] else ""
    keys = ("network", "checkpoint", "sha256", "modules_run")
    return {f"{prefix}{key}": found[key] for key in keys if found[key]}


def _add_training(builder: CurveBuilder, values: Mapping[str, float]) -> None:
    if "loss" in values:
        builder.add(TASK_LOSS, "task loss", "iteration", values["step"], _task_loss(values))
    for name, group in _training_groups(values):
        builder.add(name, group, "iteration", values["step"], values[name])


def _training_groups(names: Mapping[str, float]) -> Iterator[tuple[str, Group]]:
    for name in names:
        if name in _RATIOS:
            yield name, "ratio"
        elif name.startswith("distill_weight_"):
            yield name, "weight"
        elif name.startswith("distill_share_"):
            yield name, "share"
        elif name.startswith(("loss_distill_", "distill_")):
            yield name, "distillation"
        elif name in _DYNAMICS or name.startswith("dynamics/"):
            yield name, "dynamics"
        elif name in ("lr", "base_lr") or name.endswith((".lr", ".base_lr")):
            yield name, "learning rate"
        elif "loss" in name and name != "loss":
            yield name, "task loss"


def _task_loss(values: Mapping[str, float]) -> float:
    """The objective without distillation.

    A head may call its only loss 'loss', as MMPretrain's, and the Runner then logs that one in
    place of the sum.
    """
    terms = [name for name in values if name.startswith("loss_distill_")]
    others = {name for name in values if "loss" in name} - {"loss", *terms}
    return values["loss"] - (sum(values[name] for name in terms) if others else 0)


def _is_dynamics(name: str) -> bool:
    return name in _DYNAMICS or name.startswith("dynamics/")


def _add_dynamics(builder: CurveBuilder, values: Mapping[str, float], step: Step) -> None:
    """What is recorded counts as the training does, however validations are logged."""
    for name in filter(_is_dynamics, values):
        builder.add(name, "dynamics", step, values["step"], values[name])


def _add_validation(builder: CurveBuilder, values: Mapping[str, float], step: Step) -> None:
    for name, value in values.items():
        if _is_dynamics(name):
            continue
        if "loss" in name:
            builder.add(f"val/{name}", "task loss", step, values["step"], value)
        elif name.startswith(_SHARES) and value < 0:
            continue
        elif name not in _TIMES:
            percent = 100 * value if name.startswith(_SHARES) else value
            builder.add(name, "score", step, values["step"], percent)
