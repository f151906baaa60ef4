"""Weights of the same network under other names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mmkd.checkpoint import read_weights, renamed_by_position
from mmkd.errors import InputError


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def renamed(model: nn.Module, file: Path, *, counted: bool = True) -> Path:
    """Its weights under other names, as published, with or without BatchNorm's counters."""
    weights = {
        f"part{i}.{key.split('.')[-1]}": value
        for i, (key, value) in enumerate(model.state_dict().items())
        if counted or not key.endswith("num_batches_tracked")
    }
    torch.save(dict(epoch=240, model=weights), file)
    return file


@pytest.mark.parametrize("counted", [True, False])
def test_the_same_network_under_other_names(tmp_path: Path, counted: bool) -> None:
    theirs, ours = network(), network()
    source = read_weights(renamed(theirs, tmp_path / "t.pth", counted=counted))
    ours.load_state_dict(renamed_by_position(ours, source), strict=True)
    expected = theirs.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())


def test_another_network_is_refused(tmp_path: Path) -> None:
    source = read_weights(renamed(network(), tmp_path / "t.pth"))
    with pytest.raises(InputError, match=r"part0.weight of shape \(4, 3, 1, 1\) in the place of"):
        renamed_by_position(network(5), source)
    with pytest.raises(InputError, match="holds 8 weights, the model 2: another network"):
        renamed_by_position(nn.Conv2d(3, 4, 1), source)
