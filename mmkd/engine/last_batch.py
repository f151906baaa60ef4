"""A last batch of an epoch that is too small for what is distilled."""

from __future__ import annotations

from mmkd.distillation import Distillation
from mmkd.errors import InputError

__all__ = ["check_last_batch"]


def check_last_batch(
    distillation: Distillation, images: int, batch_size: int, drop_last: str | None = None
) -> None:
    """Raises where a batch of an epoch holds a single image, and a term needs two.

    Args:
        distillation: Of this training, in one process: several share their batches' statistics.
        images: Of an epoch, all of which are taken.
        batch_size: Of every batch but the last.
        drop_last: The setting that leaves the last batch out, where the trainer has one.

    Raises:
        InputError: With the term's setting.
    """
    if (images % batch_size or batch_size) > 1:
        return
    found, remedy = f"the last batch of an epoch holds 1 of {images} images", drop_last
    if batch_size == 1:
        found, remedy = "every batch holds 1 image", None
    for term in distillation.terms_on_two_images:
        raise InputError.at(
            f"{distillation.owner} {term.key}.view",
            f"this term takes one sample an image, and {found}, too few for BatchNormalizer: set "
            + (f"{remedy}, " if remedy else "")
            + "another batch size, or view='dense' of a feature with locations",
        )
