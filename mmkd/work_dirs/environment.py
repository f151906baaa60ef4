"""What measured figures depend on."""

from __future__ import annotations

import platform
import shlex
import sys
from pathlib import Path

import torch

__all__ = ["describe_environment"]


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _command() -> str:
    script = Path(sys.argv[0])
    program = ["python", f"{script.parent.name}/{script.name}"] if script.suffix else [script.name]
    return shlex.join([*program, *sys.argv[1:]])


def describe_environment(device: str = "cpu") -> dict[str, str]:
    """Device, threads, versions and the command that is running.

    Args:
        device: ``'cpu'`` or ``'cuda'``.
    """
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "device": f"{name}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": f"`{_command()}`",
    }
