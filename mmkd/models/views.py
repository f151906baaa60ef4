"""Several augmented views of each image in one batch."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.models.utils import ClsDataPreprocessor

__all__ = ["MultiViewPreprocessor", "RotationPreprocessor"]

# What PyTorch's cross-entropy leaves out.
_NO_LABEL = -100


class MultiViewPreprocessor(ClsDataPreprocessor):
    """Joins the V views of N images to one batch of V * N, each with its image's label.

    MMPretrain's ``MultiView`` makes the views before ``PackInputs``. Miles & Mikolajczyk train on
    pairs of augmented images (Table 4). A batch of single images, as in testing, is what it is to
    ``ClsDataPreprocessor``.

    Args: those of ``ClsDataPreprocessor``.
    """

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """``inputs`` may be a sequence over views of sequences over images; the views follow one
        another in the batch."""
        views = data["inputs"]
        if not isinstance(views[0], list | tuple):
            return super().forward(data, training)
        images = [image for view in views for image in view]
        samples = [sample.clone() for _ in views for sample in data["data_samples"]]
        for image, sample in zip(images, samples, strict=True):
            # PackInputs wrote that of the image before its views were made.
            sample.set_metainfo(dict(img_shape=tuple(image.shape[-2:])))
        return super().forward({**data, "inputs": images, "data_samples": samples}, training)


class RotationPreprocessor(ClsDataPreprocessor):
    """Follows a training's N images by their turns by 90, 180 and 270 degrees: a batch of 4 N, for
    :class:`mmkd.distillers.SSKDDistiller`.

    Turned images have the label -100, which the cross-entropy leaves out; but it divides by all
    4 N, so that a head's ``loss_weight`` of 0.4 is 0.1 of the mean over the originals. In testing
    it is ``ClsDataPreprocessor``.

    Args: those of ``ClsDataPreprocessor``; labels that are mixed or scores have no place here.

    Raises:
        ValueError: Images that are not square, or whose labels are scores.
    """

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """``inputs`` ``[N, 3, S, S]`` to ``[4 N, 3, S, S]``, first the originals."""
        found = super().forward(data, training)
        if not training:
            return found
        images, samples = found["inputs"], found["data_samples"]
        if images.shape[2] != images.shape[3]:
            raise ValueError(
                f"RotationPreprocessor turns square images, got {tuple(images.shape[2:])}: resize "
                "or crop them so in the pipeline"
            )
        if any("gt_score" in sample for sample in samples):
            raise ValueError("RotationPreprocessor takes one label an image, got scores")
        turned = [images.rot90(quarters, dims=(2, 3)) for quarters in range(1, 4)]
        copies = [sample.clone() for _ in turned for sample in samples]
        for sample in copies:
            sample.gt_label = torch.full_like(sample.gt_label, _NO_LABEL)
        return dict(inputs=torch.cat([images, *turned]), data_samples=[*samples, *copies])
