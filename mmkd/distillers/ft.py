"""Factor transfer: Kim et al., *Paraphrasing Complex Network: Network Compression via Factor
Transfer* (NeurIPS 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.batch_norm import BatchNorm
from mmkd.counted_calls import CountedCalls
from mmkd.distiller import Distiller
from mmkd.features import pair_as_maps
from mmkd.initial_weights import initialize
from mmkd.losses.base import Takes
from mmkd.numerics import as_weights, at_least_float32, check_grids, check_positive, unit_vectors
from mmkd.registry import MODELS
from mmkd.targets import Targets

__all__ = ["FTDistiller", "factor_distance"]

_SLOPE = 0.1


def factor_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """``mean |f_s / ||f_s|| - f_t / ||f_t|||``, over the entries of all images' factors.

    Eq. (4) with p = 1.

    Args:
        student, teacher: ``[N, C, H, W]``.

    Returns:
        A scalar, float32 at least.
    """
    ours, theirs = (unit_vectors(x.flatten(1)) for x in (student, teacher))
    return (ours - theirs).abs().mean()


@MODELS.register_module()
class FTDistiller(Distiller):
    """The student's translator learns the factors of a paraphraser, an autoencoder of the teacher.

    In its first iterations the term trains the paraphraser alone, on the teacher's maps (Eq. (2)),
    and the student has no part in it; then the paraphraser stands still. The paper trains it before
    the student, for 30 epochs on CIFAR; here both lie in one run, so that a resume goes on in
    either, and a weight does not change its training. Encoder and translator are three 3x3
    convolutions, each followed by BatchNorm and leaky ReLU of slope 0.1, the decoder mirrors the
    encoder (section 3).

    Args:
        student_channels, teacher_channels: Widths.
        paraphrase: Iterations of the first stage.
        rate: k, the factor's width over the teacher's; 0.5 in the paper.
        weight: A number; 500 on CIFAR in the authors' program.
        seed: Of initial weights.

    Shapes: ``[N, C_s, H, W]`` and ``[N, C_t, H, W]`` to a scalar; the finer grid is pooled.

    Raises:
        ValueError: A setting out of range; a share as the weight, for there is no gradient to share
            while the paraphraser learns.
    """

    takes = Takes(form="maps", own_widths=True)

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        paraphrase: int,
        rate: float = 0.5,
        weight: float | Mapping[str, Any] = 1.0,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(weight)
        check_positive(paraphrase=paraphrase)
        self._refuse_share(
            "while its paraphraser learns, the student has no gradient of it whose share could be "
            "kept"
        )
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, got {rate}")
        self.paraphrase = paraphrase
        width = max(1, round(rate * teacher_channels))
        self.encoder = _convolutions(teacher_channels, teacher_channels, width, width)
        self.decoder = _convolutions(width, width, teacher_channels, teacher_channels)
        self.translator = _convolutions(student_channels, student_channels, width, width)
        initialize(self, torch.Generator().manual_seed(seed))
        self.iterations = CountedCalls()

    def distance(self, student: Tensor, teacher: Tensor, targets: Targets | None = None) -> Tensor:
        """See :meth:`mmkd.distiller.Distiller.distance`."""
        student, teacher = pair_as_maps(
            student, teacher.detach(), None if targets is None else targets.size
        )
        check_grids(student, teacher)
        teacher = as_weights(self, at_least_float32(teacher))
        done = self.iterations.count() if self.training else self.iterations.so_far()
        if done < self.paraphrase:
            difference = at_least_float32(self.decoder(self.encoder(teacher))) - teacher
            return difference.square().mean() / (self._fixed or 1.0)
        self.encoder.eval()
        with torch.no_grad():
            factor = self.encoder(teacher)
        return factor_distance(self.translator(as_weights(self, student)), factor)


def _convolutions(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for ours, theirs in pairwise(widths):
        convolution = nn.utils.skip_init(nn.Conv2d, ours, theirs, 3, padding=1, bias=False)
        layers += [convolution, BatchNorm(theirs), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers)
