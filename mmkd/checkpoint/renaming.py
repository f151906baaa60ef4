"""Weights of the same network under other names."""

from __future__ import annotations

from torch import Tensor, nn

from mmkd.checkpoint.reading import CheckpointWeights
from mmkd.errors import InputError

__all__ = ["renamed_by_position"]

# A counter that some files leave out, and no network computes with.
_COUNTER = "num_batches_tracked"


def renamed_by_position(model: nn.Module, source: CheckpointWeights) -> dict[str, Tensor]:
    """A ``state_dict`` of the model's, from a file that holds the same layers in the same order.

    That of other code for the same network, such as the published CIFAR-100 teachers of CRD's
    framework.

    Args:
        model: Whose names are taken.
        source: The file's weights.

    Raises:
        InputError: Another number of weights, or one of another shape: another network.
    """
    own = model.state_dict()
    names = [name for name in own if not name.endswith(_COUNTER)]
    theirs = [(k, v) for k, v in source.weights.items() if not k.endswith(_COUNTER)]
    if len(names) != len(theirs):
        raise InputError(
            f"{source.file} holds {len(theirs)} weights, the model {len(names)}: another network"
        )
    for name, (key, value) in zip(names, theirs, strict=True):
        if own[name].shape != value.shape:
            raise InputError(
                f"{source.file} holds {key} of shape {tuple(value.shape)} in the place of the "
                f"model's {name} of shape {tuple(own[name].shape)}: another network"
            )
    return {**own, **{name: value for name, (_, value) in zip(names, theirs, strict=True)}}
