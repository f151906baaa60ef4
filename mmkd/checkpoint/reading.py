"""The weights of a checkpoint's file, read without executing anything of it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkd.checkpoint.files import check_archive, regular_file
from mmkd.checkpoint.networks import PickledNetwork, network_in
from mmkd.checkpoint.pickled import HoldsMoreError, read_pickled
from mmkd.input_files import sha256

__all__ = ["CheckpointWeights", "read_weights"]

_CONTAINERS = ("state_dict", "model", "module")


@dataclass(frozen=True)
class CheckpointWeights:
    """The weights of a checkpoint file, and which file it was.

    Args:
        file: The file.
        sha256: Of its bytes, in hexadecimal.
        weights: By name.
        meta: What OpenMMLab's runners store beside them, such as the config's text (``cfg``).
        network: Where the file holds a whole network, as those of Ultralytics and of the YOLOv5
            repository do.
    """

    file: Path
    sha256: str
    weights: dict[str, Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)
    network: PickledNetwork | None = None


def read_weights(path: str | Path, *, allow_pickle: bool = False) -> CheckpointWeights:
    """Reads the weights of a ``.pth``, ``.pt`` or ``.safetensors`` file.

    Args:
        path: The file. Weights may lie at its top or under ``state_dict``, ``model`` or
            ``module``, or belong to a network that Ultralytics or the YOLOv5 repository pickled as
            a whole; a leading ``module.`` of the names is dropped.
        allow_pickle: Also execute what is pickled in it. Only for files you trust.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file would execute code, claims more than it holds, is no regular file or
            holds no weights.
    """
    file = regular_file(path)
    content = _load(file, allow_pickle)
    network = network_in(content)
    meta = content.get("meta") if isinstance(content, Mapping) else None
    weights = network.weights() if network is not None else _tensors_in(content)
    if not weights:
        raise ValueError(f"{path} holds no weights (looked at its top and under {_CONTAINERS})")
    for name, tensor in weights.items():
        if not _is_held(tensor):
            raise ValueError(
                f"{file} is no checkpoint, or a damaged one: {name} claims more than it holds"
            )
    return CheckpointWeights(
        file=file,
        sha256=sha256(file),
        weights={name.removeprefix("module."): tensor for name, tensor in weights.items()},
        meta=meta if isinstance(meta, Mapping) else {},
        network=network,
    )


def _load(file: Path, allow_pickle: bool) -> Any:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        if allow_pickle:
            return torch.load(file, map_location="cpu", weights_only=False)
        check_archive(file)
        return read_pickled(file)
    except HoldsMoreError:
        raise
    except Exception as error:  # A damaged file fails in any way.
        text = str(error)
        reason = f": {type(error).__name__}: {text.partition(chr(10))[0]}"
        # Around the reason, torch writes its advice to execute the file.
        if not allow_pickle and (
            isinstance(error, pickle.UnpicklingError) or "weights_only" in text
        ):
            reason = ", or asks for more than weights, which is not executed"
        raise ValueError(f"{file} is no checkpoint, or a damaged one{reason}") from error


def _tensors_in(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for name in _CONTAINERS:
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _is_held(tensor: Tensor) -> bool:
    """Whether its values lie in the file, and not in a view that repeats few of them."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
