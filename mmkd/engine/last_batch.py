"""A last batch of an epoch that is too small for what is distilled."""

from __future__ import annotations

from mmkd.distillation import Distillation
from mmkd.errors import InputError

__all__ = ["check_last_batch"]


def check_last_batch(distillation: Distillation, images: int, batch_size: int, remedy: str) -> None:
    """Raises where the last batch of an epoch holds a single image, and a term needs two.

    Args:
        distillation: Of this training, in one process: several share their batches' statistics.
        images: Of an epoch, all of which are taken.
        batch_size: Of every batch but the last.
        remedy: What a user of this trainer may set, before what any of them may.

    Raises:
        InputError: With the term's setting.
    """
    if (images % batch_size or batch_size) > 1:
        return
    for term in distillation.terms_on_two_images:
        raise InputError.at(
            f"{distillation.owner} {term.key}.view",
            f"this term takes one sample an image, and the last batch of an epoch holds 1 of "
            f"{images} images, too few for BatchNormalizer: {remedy}another batch_size, or "
            "view='dense' of a feature with locations",
        )
