"""What MM data samples say that the images show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkd.targets import Boxes, Targets

__all__ = ["targets_of"]

_OF_IMAGES = (
    "so a loss that takes the labels of images cannot serve (DKDLoss takes those of a detector's "
    "regions by of='regions')"
)


def targets_of(inputs: Tensor, samples: Sequence[Any] | None) -> Targets:
    """Of a batch as the data preprocessor left it.

    Args:
        inputs: ``[N, 3, H, W]``, padded.
        samples: Data samples of MMDetection or MMPretrain. Boxes are those of ``gt_instances``,
            labels those of the image, indices the ``sample_idx`` of the pipeline's ``meta_keys``,
            regions those of :class:`mmkd.engine.mmengine.detector_heads.BatchSamples`.
    """
    return Targets(
        (inputs.shape[2], inputs.shape[3]),
        labels=lambda: _labels(samples),
        boxes=lambda: _boxes(samples),
        indices=lambda: _indices(samples, inputs.device),
        regions=getattr(samples, "proposals", None),
    )


def _each(samples: Sequence[Any] | None, name: str, advice: str) -> list[Any]:
    if not samples or not all(hasattr(sample, name) for sample in samples):
        raise ValueError(f"the data samples hold no {name}, {advice}")
    return [getattr(sample, name) for sample in samples]


def _labels(samples: Sequence[Any] | None) -> Tensor:
    """Class indices ``[N]``, or scores ``[N, K]`` after mixup."""
    join: Callable[[list[Tensor]], Tensor]
    if samples and all(hasattr(sample, "gt_score") for sample in samples):
        name, join = "gt_score", torch.stack
    else:
        name, join = "gt_label", torch.cat
    return join(_each(samples, name, _OF_IMAGES))


def _boxes(samples: Sequence[Any] | None) -> list[Boxes]:
    found = _each(samples, "gt_instances", "so a loss that takes boxes cannot serve")
    # Some pipelines give boxes of a type of their own around the tensor.
    return [Boxes(getattr(each.bboxes, "tensor", each.bboxes), each.labels) for each in found]


def _indices(samples: Sequence[Any] | None, device: torch.device) -> Tensor:
    advice = (
        "so a loss that asks for image indices cannot serve: add 'sample_idx' to the meta_keys of "
        "the pipeline's last step"
    )
    return torch.tensor(_each(samples, "sample_idx", advice), device=device)
