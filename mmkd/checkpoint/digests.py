"""By what weights are told from others, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["tensors_digest"]


def tensors_digest(named: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, types, shapes and values, in the order given, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in named:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
