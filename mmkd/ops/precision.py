"""The precision the operators compute in."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

__all__ = ["common_float"]


def common_float(*tensors: Tensor) -> list[Tensor]:
    """The tensors in one common floating type, no narrower than float32.

    torchvision's kernels demand one type, and on the CPU have no bfloat16. Coordinates also lose
    whole pixels in half precision.
    """
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return [tensor.to(dtype) for tensor in tensors]
