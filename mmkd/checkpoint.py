"""Reading weights without executing what is pickled beside them, and loading them strictly."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.errors import first_few

__all__ = ["CheckpointWeights", "LoadReport", "load_weights", "read_weights"]

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


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint did and did not fill of a model."""

    source: CheckpointWeights
    loaded: int
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.source.file} (sha256 {self.source.sha256}): {self.loaded} tensors loaded, "
            f"{len(self.missing)} missing, {len(self.mismatched)} of another shape, "
            f"{len(self.unexpected)} unexpected"
        )

    def require(self, ran: set[str]) -> None:
        """Raises unless everything that runs was loaded.

        Args:
            ran: Names of the modules that run, from ``modules_that_run``.

        Raises:
            ValueError: A weight of a module that runs is missing or of another shape, or the
                file holds more weights for a part that runs (a deeper network's).
        """

        def runs(key: str) -> bool:
            # The parent counts too: some modules use a child's weights without calling it.
            owner = key.rpartition(".")[0]
            parent = owner.rpartition(".")[0]
            return not owner or owner in ran or (bool(parent) and parent in ran)

        problems = [f"{key} is missing" for key in self.missing if runs(key)]
        problems += [text for text in self.mismatched if runs(text.split(" ")[0])]
        problems += [
            f"{key} has no place in the model"
            for key in self.unexpected
            if key.partition(".")[0] in ran
        ]
        if problems:
            raise ValueError(
                f"{self.source.file} does not fit the teacher, {len(problems)} weights differ: "
                f"{first_few(problems, '; ')}. Give the checkpoint that belongs to the teacher's "
                "config."
            )


def load_weights(model: nn.Module, source: CheckpointWeights) -> LoadReport:
    """Copies every weight that fits into ``model`` and reports the rest.

    Whether the rest matters depends on what will run: see :meth:`LoadReport.require`.
    """
    own = model.state_dict()
    fitting, mismatched = {}, []
    for key, value in source.weights.items():
        if key in own and own[key].shape == value.shape:
            fitting[key] = value
        elif key in own:
            mismatched.append(
                f"{key} is {tuple(value.shape)} in the file, {tuple(own[key].shape)} in the model"
            )
    model.load_state_dict(fitting, strict=False)
    return LoadReport(
        source=source,
        loaded=len(fitting),
        missing=tuple(
            k for k in own if k not in source.weights and not k.endswith("num_batches_tracked")
        ),
        mismatched=tuple(mismatched),
        unexpected=tuple(k for k in source.weights if k not in own),
    )
