"""What ``mmcv.utils.collect_env`` reports about the extension's build."""

from __future__ import annotations

import torchvision

__all__ = ["get_compiler_version", "get_compiling_cuda_version"]


def get_compiler_version() -> str:
    return f"not compiled (mmkd.ops on torchvision {torchvision.__version__})"


def get_compiling_cuda_version() -> str:
    return "not compiled"
