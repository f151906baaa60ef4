"""Localization distillation: Zheng et al., *Localization Distillation for Dense Object Detection*
(CVPR 2022)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import log_softmax

from mmkd.losses.base import Takes, TemperatureLoss
from mmkd.numerics import at_least_float32, check_maps, check_temperature
from mmkd.registry import MODELS
from mmkd.targets import Targets, on_grid

__all__ = ["LDLoss", "check_bins", "divergence_of_sides", "localization_distillation"]

_SIDES = 4


def localization_distillation(
    student: Tensor,
    teacher: Tensor,
    scores: Tensor,
    temperature: float = 10.0,
    *,
    total: Tensor | None = None,
) -> Tensor:
    """``T^2 sum_ij q_ij KL_ij / (4 B Q)`` of the distributions of the boxes' four sides.

    ``KL_ij`` sums over the sides at cell (i, j) of each image, of B bins each, between the
    teacher's ``softmax(t / T)`` and the student's (the paper's Eq. (3) to (5)); the mean over bins,
    T^2 and Q, the sum of q over the cells of all levels, are those of the authors' program.

    Args:
        student, teacher: Logits ``[N, 4 B, H, W]``, side by side, of a side its bins.
        scores: q ``[N, 1, H, W]``, 0 or more.
        temperature: T, above 0.
        total: Q; None: the sum of these scores, where there is one level.

    Returns:
        A scalar, float32 at least; 0 where no cell counts.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 4; widths that are no four sides of two
            bins or more; a temperature out of range.
    """
    check_temperature(temperature)
    check_maps(student, teacher)
    width = student.shape[1]
    check_bins(width)
    divergence = divergence_of_sides(student, teacher, temperature).sum(dim=1)
    total = scores.sum() if total is None else total.to(scores)
    weighted = (scores[:, 0] * divergence).sum() / total.clamp_min(1e-12)
    return weighted * temperature**2 / width


def check_bins(width: int) -> None:
    """Raises ValueError unless it is the width of four sides of two bins or more."""
    if width % _SIDES or width < 2 * _SIDES:
        raise ValueError(
            f"expected maps of 4 sides of 2 bins or more, got {width} channels: does the head "
            "predict distributions?"
        )


def divergence_of_sides(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``KL(softmax(t / T) || softmax(s / T))`` over the bins of each of a box's sides.

    Args:
        student, teacher: Logits ``[N, 4 B, H, W]``, side by side, of a side its bins.
        temperature: T, above 0.

    Returns:
        ``[N, 4, H, W]``, float32 at least.
    """
    log_p, log_q = (
        log_softmax(at_least_float32(x).unflatten(1, (_SIDES, -1)) / temperature, dim=2)
        for x in (student, teacher)
    )
    return (log_q.exp() * (log_q - log_p)).sum(dim=2)


@MODELS.register_module()
class LDLoss(TemperatureLoss):
    """:func:`localization_distillation` as a module, for ``'head.boxes'`` of GFL and of YOLO.

    q is the teacher's largest class probability at a cell, Q its sum over all levels of the
    teacher's head, so that the terms of all levels add up to one mean over cells. The authors take
    the cells that the student's assigner calls positive, by their own largest probability, and a
    second term of the same size on those close to them; here both are where the teacher sees
    objects, whatever the assigner. Their weights are 0.25 each.

    Args:
        temperature: T, above 0.

    Shapes: ``[N, 4 B, H, W]`` and ``[N, 4 B, H, W]`` to a scalar.

    Raises:
        ValueError: A temperature out of range; shapes that differ, are empty or not of rank 4; in a
            term, widths that are not the same bins.
    """

    takes = Takes(form="maps", targets=("scores",))

    def __init__(self, temperature: float = 10.0) -> None:
        super().__init__(temperature)

    def check_widths(self, student: int, teacher: int) -> None:
        """See :meth:`mmkd.losses.base.Loss.check_widths`: predictions are not projected."""
        for width in (student, teacher):
            check_bins(width)
        if student != teacher:
            raise ValueError(
                f"LDLoss compares distributions bin by bin, got {student // _SIDES} bins of a side "
                f"of the student's ({student} channels) and {teacher // _SIDES} of the teacher's "
                f"({teacher}): give both heads the same number (reg_max)"
            )

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        check_maps(student, teacher)
        scores = on_grid(targets.scores, student)
        return localization_distillation(
            student, teacher, scores, self.temperature, total=targets.total_score
        )
