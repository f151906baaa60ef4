"""A detector built from what its checkpoint tells of its architecture; no pickled code runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules.conv import Conv

from mmkd.checkpoint import CheckpointWeights, LoadReport, load_weights
from mmkd.checkpoint.networks import PickledNetwork
from mmkd.engine.ultralytics.safe_loading import switched
from mmkd.errors import first_few

__all__ = ["build_detector", "check_modules", "head_of", "is_original"]

# By which a built network may exceed the file's: the heads of the YOLOv5 repository are smaller.
_SPARE = 2_000_000
# Attributes of torch's own layers that change nothing of what they compute in a frozen network.
_NO_MATTER = {"training", "inplace", "momentum", "np", "i", "f", "type"}
_DOWNLOADING = "TorchVision"
# Names of a class that Ultralytics itself replaces.
_RENAMED = {"Silence": "Identity"}


def is_original(network: PickledNetwork) -> bool:
    """Whether it comes from the YOLOv5 repository."""
    return network.type_name.startswith("models.")


def head_of(network: PickledNetwork) -> str:
    """The name of its last layer (``'model.24'``)."""
    layers = [name for name in network.modules if name.startswith("model.")]
    # In the order of the file, which is that of the network.
    return [name for name in layers if name.count(".") == 1][-1]


def build_detector(source: CheckpointWeights) -> tuple[nn.Module, LoadReport]:
    """The network of a checkpoint of Ultralytics' or the YOLOv5 repository's, with its weights.

    The head of the repository's networks works with anchors; Ultralytics' of the same place has
    other weights, and these stay untrained.

    Args:
        source: From :func:`mmkd.checkpoint.read_weights`.

    Raises:
        ValueError: It holds no such network, or one that cannot be built.
    """
    network = source.network
    if network is None:
        raise ValueError(
            f"{source.file} holds weights without an architecture: expected a checkpoint of "
            "Ultralytics' or of the YOLOv5 repository"
        )
    kind, definition = _class_of(source, network), _definition(source, network)
    channels = definition.get("channels", definition.get("ch", 3))
    try:
        with switched(True), _activation_kept():
            _check_extent(definition, channels, source)
            model: Any = kind(definition, ch=channels, verbose=False)
    except Exception as error:  # Any layer fails in its own way.
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{source.file}: its architecture cannot be built here: {type(error).__name__}: "
            f"{reason}"
        ) from error
    names = network.attribute("names")
    model.names = dict(enumerate(names)) if isinstance(names, list) else names or model.names
    return model, load_weights(model, source)


def _class_of(source: CheckpointWeights, network: PickledNetwork) -> type[nn.Module]:
    name = network.type_name.rpartition(".")[2]
    if is_original(network) and name in ("Model", "DetectionModel"):
        return tasks.DetectionModel
    found = getattr(tasks, name.removeprefix("YOLOv10"), None)
    if (
        is_original(network)
        or not isinstance(found, type)
        or not issubclass(found, tasks.DetectionModel)
    ):
        raise ValueError(
            f"expected a detector, found {name} in {source.file}. Give a detector's checkpoint, or "
            "another network as dict(module=...)"
        )
    return found


def _definition(source: CheckpointWeights, network: PickledNetwork) -> dict[str, Any]:
    definition = network.attribute("yaml")
    rows = [*_rows(definition, "backbone"), *_rows(definition, "head")]
    if not rows or not all(isinstance(row, list) and len(row) == 4 for row in rows):
        raise ValueError(f"{source.file} holds a network without a definition of its layers")
    if any(row[2] == _DOWNLOADING for row in rows):
        raise ValueError(
            f"{source.file} holds a layer {_DOWNLOADING}, which downloads weights where it is "
            "built: hand the model over from memory"
        )
    if is_original(network):
        # Its anchors mean something else where Ultralytics' head takes arguments.
        definition["head"][-1][3] = ["nc"]
    return definition


def _rows(definition: Any, part: str) -> list[Any]:
    rows = definition.get(part) if isinstance(definition, dict) else None
    return rows if isinstance(rows, list) else []


def _check_extent(definition: Mapping[str, Any], channels: int, source: CheckpointWeights) -> None:
    """Raises where building it would take far more memory than the file's own weights.

    Raises:
        ValueError: It would.
    """
    depth = _depth(definition)
    for _, repeats, _, _ in (*definition["backbone"], *definition["head"]):
        # Ultralytics scales what is repeated at all.
        if repeats > 1 and repeats * max(depth, 1) > len(source.weights):
            raise ValueError(f"a layer {repeats} times, and {len(source.weights)} tensors")
    with torch.device("meta"):
        layers, _ = tasks.parse_model(copy.deepcopy(definition), ch=channels, verbose=False)
    planned = sum(each.numel() for each in layers.state_dict().values())
    held = sum(each.numel() for each in source.weights.values())
    if planned > 2 * held + _SPARE:
        raise ValueError(f"it plans {planned} values, and the file holds {held}")


def _depth(definition: Mapping[str, Any]) -> float:
    scales = definition.get("scales") or {}
    if scales:
        return scales.get(definition.get("scale"), next(iter(scales.values())))[0]
    return definition.get("depth_multiple", 1.0)


@contextmanager
def _activation_kept() -> Iterator[None]:
    """Where building fails, Ultralytics leaves the file's activation to later networks."""
    activation = Conv.default_act
    try:
        yield
    finally:
        Conv.default_act = activation


def check_modules(model: nn.Module, source: CheckpointWeights, ran: set[str]) -> None:
    """Raises unless the layers that run compute what those of the file did.

    Their classes may have changed between two versions of Ultralytics, which weights that fit do
    not show: an activation, a kernel of the same size with another stride.

    Args:
        model: From :func:`build_detector`.
        source: Of its weights.
        ran: Names of the modules that run.

    Raises:
        ValueError: A module of another class, or with another setting of torch's layers.
    """
    assert source.network is not None
    layers = {".".join(name.split(".")[:2]) for name in ran}
    problems = [
        problem
        for name, module in model.named_modules(remove_duplicate=False)
        if ".".join(name.split(".")[:2]) in layers
        for problem in _differences(name, module, source.network)
    ]
    if problems:
        raise ValueError(
            f"{source.file} holds other modules than this version of Ultralytics builds: "
            f"{first_few(problems, '; ')}. Load it by the version that wrote it"
        )


def _differences(name: str, module: nn.Module, network: PickledNetwork) -> list[str]:
    own = type(module).__name__
    if name not in network.modules:
        return [f"{name} is missing there, {own} here"]
    found = network.modules[name].name.rpartition(".")[2]
    found = _RENAMED.get(found, found)
    if found != own:
        return [f"{name} is {found} there, {own} here"]
    if not type(module).__module__.startswith("torch.nn."):
        return []
    differing = []
    for key, value in vars(module).items():
        if key.startswith("_") or key in _NO_MATTER:
            continue
        there = network.attribute(key, name)
        if there is not None and there != value:
            differing.append(f"{name}.{key} is {there!r} there, {value!r} here")
    return differing
