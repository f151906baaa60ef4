"""Several augmented views of each image in one batch."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.utils import ClsDataPreprocessor

__all__ = ["MultiViewPreprocessor"]


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
