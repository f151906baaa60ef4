"""Reading a checkpoint's weights without executing what is pickled in it."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["CheckpointWeights", "read_weights"]

# What OpenMMLab's runners pickle beside the weights: log buffers (with their methods, hence
# getattr), numpy scalars and arrays.
_BESIDE_WEIGHTS = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
)
_CONTAINERS = ("state_dict", "model", "module")


@dataclass(frozen=True)
class CheckpointWeights:
    """The weights of a checkpoint file, and which file it was.

    Args:
        file: The file.
        sha256: Of its bytes, in hexadecimal.
        weights: By name.
        meta: What OpenMMLab's runners store beside them, such as the config's text (``cfg``).
    """

    file: Path
    sha256: str
    weights: dict[str, Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)


class _Ignored:
    """Takes the place of what lies beside the weights, so that none of it is built or called.

    Allowing the real ones would allow everything: getattr leads from any of them to ``exec``.
    """

    def __init__(self, *args: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _load(file: Path, allow_pickle: bool) -> Any:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with torch.serialization.safe_globals([(_Ignored, name) for name in _BESIDE_WEIGHTS]):
            return torch.load(file, map_location="cpu", weights_only=not allow_pickle)
    except Exception as error:  # A damaged file fails in any way.
        if allow_pickle or not isinstance(error, pickle.UnpicklingError):
            raise ValueError(f"{file} is no checkpoint, or a damaged one: {error!r}") from error
        # What torch writes around the reason is the advice to execute the file.
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        raise ValueError(
            f"{file} is no checkpoint, or holds more than weights and is not executed: {reason} "
            "If you trust the file, set allow_pickle=True beside 'checkpoint'."
        ) from error


def read_weights(path: str | Path, *, allow_pickle: bool = False) -> CheckpointWeights:
    """Reads the weights of a ``.pth``, ``.pt`` or ``.safetensors`` file.

    Args:
        path: The file. Weights may lie at its top or under ``state_dict``, ``model`` or
            ``module``; a leading ``module.`` of the names is dropped.
        allow_pickle: Also execute what is pickled in it. Only for files you trust.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file would execute code, or holds no weights.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    content = _load(file, allow_pickle)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    for name in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    weights = (
        {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not weights:
        raise ValueError(f"{path} holds no weights (looked at its top and under {_CONTAINERS})")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return CheckpointWeights(
        file=file, sha256=digest, weights=weights, meta=meta if isinstance(meta, Mapping) else {}
    )
