"""Channel-wise distillation: Shu et al., *Channel-wise Knowledge Distillation for Dense Prediction*
(ICCV 2021)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from mmkd.losses.base import Takes, TemperatureLoss
from mmkd.numerics import at_least_float32, check_maps, check_temperature
from mmkd.registry import MODELS

__all__ = ["CWDLoss", "cwd"]


def cwd(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 / (N C) sum_nc KL(softmax_hw(t_nc / T) || softmax_hw(s_nc / T))``.

    Each channel of each image is a distribution over its locations.

    Args:
        student, teacher: Maps ``[N, C, H, W]``.
        temperature: T, above 0.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: Shapes differ, are empty or not of rank 4; a temperature out of range.
    """
    check_temperature(temperature)
    check_maps(student, teacher)
    log_p, log_q = (
        log_softmax(at_least_float32(x).flatten(2) / temperature, dim=2) for x in (student, teacher)
    )
    divergence = kl_div(log_p, log_q, log_target=True, reduction="sum")
    return divergence * (temperature**2 / (student.shape[0] * student.shape[1]))


@MODELS.register_module()
class CWDLoss(TemperatureLoss):
    """:func:`cwd` as a module. The paper's weight on pyramid maps is 10 at T = 1.

    Args:
        temperature: T, above 0.

    Shapes: ``[N, C, H, W]`` and ``[N, C, H, W]`` to a scalar.

    Raises:
        ValueError: A temperature out of range; shapes that differ, are empty or not of rank 4.
    """

    takes = Takes(form="maps", cells=2)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return cwd(student, teacher, self.temperature)
