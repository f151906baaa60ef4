"""Deformable convolutions v1 and v2, with the names and conventions of ``mmcv._ext``.

``input`` is ``[N, C, H, W]``, ``offset`` ``[N, 2 G kh kw, H', W']`` with (y, x) pairs for each of G
deformable groups, ``mask`` ``[N, G kh kw, H', W']``, ``weight`` ``[O, C / groups, kh, kw]``. mmcv
and torchvision lay them out alike. Every function writes into the buffers it is given; gradients
are added to what the buffer holds. ``ones`` and ``im2col_step`` stay unused: torchvision manages
its own scratch memory.
"""

from __future__ import annotations

import torch
import torchvision  # noqa: F401  (loads the operators behind torch.ops.torchvision)
from torch import Tensor

from .precision import common_float

__all__ = [
    "deform_conv_backward_input",
    "deform_conv_backward_parameters",
    "deform_conv_forward",
    "modulated_deform_conv_backward",
    "modulated_deform_conv_forward",
]


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Deformable convolution (Dai et al., ICCV 2017)."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_forward(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add the gradients of :func:`deform_conv_forward` for its input and offset."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    grads = _backward(gradOutput, input, weight, offset, None, geometry)
    gradInput += grads[0]
    gradOffset += grads[2]
    # torchvision's backward yields every gradient at once. The weight's waits in the scratch
    # buffer, with which mmcv calls deform_conv_backward_parameters next: half the work is saved.
    columns.resize_(weight.shape).copy_(grads[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient of :func:`deform_conv_forward` for its weight.

    Takes it from ``columns`` where :func:`deform_conv_backward_input` left it, and empties them.
    """
    if columns.shape == gradWeight.shape:
        gradWeight += scale * columns
        columns.resize_(0)
        return
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    # The weight's own values do not enter its gradient; only their shape is needed.
    grads = _backward(gradOutput, input, gradWeight, offset, None, geometry)
    gradWeight += scale * grads[1]


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Modulated deformable convolution (Zhu et al., CVPR 2019)."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    output.copy_(_forward(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add the gradients of :func:`modulated_deform_conv_forward`."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    grads = _backward(grad_output, input, weight, offset, mask, geometry)
    buffers = [grad_input, grad_weight, grad_offset, grad_mask]
    for buffer, grad in zip(buffers, grads[:4], strict=True):
        buffer += grad
    if with_bias:
        grad_bias += grads[4]


def _forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[int, ...],
) -> Tensor:
    tensors = _operands(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(*tensors, *geometry, mask is not None)


def _backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    geometry: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients for input, weight, offset, mask and bias."""
    tensors = common_float(grad_output, *_operands(input, weight, offset, mask, None))
    return torch.ops.torchvision._deform_conv2d_backward(*tensors, *geometry, mask is not None)


def _operands(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None
) -> list[Tensor]:
    """In torchvision's order and one type; it wants tensors for an absent mask and bias, too."""
    mask = input.new_zeros(len(input), 1) if mask is None else mask
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    return common_float(input, weight, offset, mask, bias)
