from __future__ import annotations

import importlib

import pytest
import torch
from mmcv.ops import (
    DeformConv2dPack,
    ModulatedDeformConv2dPack,
    deform_conv2d,
    modulated_deform_conv2d,
)
from torch import Tensor
from torch.autograd import gradcheck

# kernel (height, width), stride, padding, dilation, groups, deformable groups
GEOMETRIES = [
    ((3, 3), 1, 1, 1, 1, 1),
    ((3, 2), (2, 1), (1, 0), (1, 2), 2, 1),
    ((1, 3), 1, (0, 2), 2, 1, 2),
    ((2, 2), 2, 1, 1, 2, 4),
]
BATCH, CHANNELS, OUT, HEIGHT, WIDTH = 2, 4, 6, 6, 7


def pair(value) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def operands(
    geometry, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> dict[str, Tensor]:
    kernel, stride, padding, dilation, groups, deform_groups = geometry
    height, width = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(
            (HEIGHT, WIDTH), kernel, pair(stride), pair(padding), pair(dilation), strict=True
        )
    )
    points = deform_groups * kernel[0] * kernel[1]
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "input": (BATCH, CHANNELS, HEIGHT, WIDTH),
        "offset": (BATCH, 2 * points, height, width),
        "mask": (BATCH, points, height, width),
        "weight": (OUT, CHANNELS // groups, *kernel),
        "bias": (OUT,),
    }
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)
        for name, shape in shapes.items()
    }


def sample(plane: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear values of ``[C, H, W]`` at points, as if zeros lay around the plane."""
    rows = torch.arange(HEIGHT, dtype=y.dtype)[:, None, None]
    columns = torch.arange(WIDTH, dtype=x.dtype)[:, None, None]
    weight_y = (1 - (y - rows).abs()).clamp(min=0)
    weight_x = (1 - (x - columns).abs()).clamp(min=0)
    return torch.einsum("crs,rpq,spq->cpq", plane, weight_y, weight_x)


def reference(input, offset, weight, geometry, mask=None, bias=None) -> Tensor:
    """The definition: an ordinary convolution whose taps are sampled at shifted places."""
    (kernel_h, kernel_w), stride, padding, dilation, groups, deform_groups = geometry
    stride, padding, dilation = pair(stride), pair(padding), pair(dilation)
    height, width = offset.shape[2:]
    offset = offset.view(BATCH, deform_groups, kernel_h, kernel_w, 2, height, width)
    per_deform, per_group = CHANNELS // deform_groups, CHANNELS // groups
    taps = input.new_zeros(BATCH, CHANNELS, kernel_h, kernel_w, height, width)
    for n in range(BATCH):
        for d in range(deform_groups):
            channels = slice(d * per_deform, (d + 1) * per_deform)
            for i in range(kernel_h):
                for j in range(kernel_w):
                    y = torch.arange(height)[:, None] * stride[0] - padding[0] + i * dilation[0]
                    x = torch.arange(width)[None, :] * stride[1] - padding[1] + j * dilation[1]
                    shift = offset[n, d, i, j]
                    taps[n, channels, i, j] = sample(input[n, channels], y + shift[0], x + shift[1])
                    if mask is not None:
                        modulation = mask.view(BATCH, deform_groups, kernel_h, kernel_w, height, -1)
                        taps[n, channels, i, j] *= modulation[n, d, i, j]
    output = torch.cat(
        [
            torch.einsum("ncijpq,ocij->nopq", taps[:, g * per_group : (g + 1) * per_group], w)
            for g, w in enumerate(weight.chunk(groups))
        ],
        dim=1,
    )
    return output if bias is None else output + bias[:, None, None]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("im2col_step", [1, 32])
def test_deform_conv_and_its_gradients_against_the_definition(device, geometry, im2col_step):
    given = operands(geometry)
    names = ("input", "offset", "weight")
    mine = [given[name].to(device).requires_grad_() for name in names]
    theirs = [given[name].clone().requires_grad_() for name in names]
    output = deform_conv2d(*mine, *geometry[1:], False, im2col_step)
    expected = reference(*theirs, geometry)
    torch.testing.assert_close(output.cpu(), expected)
    upstream = torch.randn_like(expected)
    grads = torch.autograd.grad(output, mine, upstream.to(device))
    for grad, wanted in zip(grads, torch.autograd.grad(expected, theirs, upstream), strict=True):
        torch.testing.assert_close(grad.cpu(), wanted)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_modulated_deform_conv_and_its_gradients_against_the_definition(
    device, geometry, with_bias
):
    given = operands(geometry)
    names = ["input", "offset", "mask", "weight", "bias"][: 4 + with_bias]
    mine = {name: given[name].to(device).requires_grad_() for name in names}
    theirs = {name: given[name].clone().requires_grad_() for name in names}
    bias = () if with_bias else (None,)
    output = modulated_deform_conv2d(*mine.values(), *bias, *geometry[1:])
    expected = reference(**theirs, geometry=geometry)
    torch.testing.assert_close(output.cpu(), expected)
    upstream = torch.randn_like(expected)
    grads = torch.autograd.grad(output, list(mine.values()), upstream.to(device))
    wanted = torch.autograd.grad(expected, list(theirs.values()), upstream)
    for grad, reference_grad in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad.cpu(), reference_grad)


@pytest.mark.parametrize("geometry", GEOMETRIES[:2])
def test_gradients_by_finite_differences(device, geometry):
    given = [x.requires_grad_() for x in operands(geometry, device=device).values()]
    x, offset, mask, weight, bias = given
    options = {"fast_mode": True, "nondet_tol": 1e-12}
    assert gradcheck(lambda *t: deform_conv2d(*t, *geometry[1:]), (x, offset, weight), **options)
    assert gradcheck(
        lambda *t: modulated_deform_conv2d(*t, *geometry[1:]),
        (x, offset, mask, weight, bias),
        **options,
    )


def test_gradient_of_the_weight_alone():
    geometry = GEOMETRIES[0]
    given = operands(geometry)
    every = [given[name].clone().requires_grad_() for name in ("input", "offset", "weight")]
    alone = given["weight"].clone().requires_grad_()
    deform_conv2d(*every, *geometry[1:]).sum().backward()
    deform_conv2d(given["input"], given["offset"], alone, *geometry[1:]).sum().backward()
    torch.testing.assert_close(alone.grad, every[2].grad)


def test_backward_again_through_one_graph():
    geometry = GEOMETRIES[0]
    given = operands(geometry)
    tensors = [given[name].requires_grad_() for name in ("input", "offset", "weight")]
    output = deform_conv2d(*tensors, *geometry[1:])
    first = torch.autograd.grad(output.sum(), tensors, retain_graph=True)
    second = torch.autograd.grad((3 * output).sum(), tensors)
    for once, thrice in zip(first, second, strict=True):
        torch.testing.assert_close(3 * once, thrice)


def test_the_weight_gradient_left_in_the_scratch_buffer_is_used_once():
    extension = importlib.import_module("mmcv._ext")
    given = operands(GEOMETRIES[0])
    x, offset, weight = (given[name] for name in ("input", "offset", "weight"))
    sizes = {"kW": 3, "kH": 3, "dW": 1, "dH": 1, "padW": 1, "padH": 1, "dilationW": 1}
    sizes |= {"dilationH": 1, "group": 1, "deformable_group": 1, "im2col_step": 2}
    upstream = torch.ones(BATCH, OUT, HEIGHT, WIDTH, dtype=torch.float64)
    columns = x.new_empty(0)
    extension.deform_conv_backward_input(
        x,
        offset,
        upstream,
        x.new_zeros(x.shape),
        torch.zeros_like(offset),
        weight,
        columns,
        **sizes,
    )
    grads = [torch.zeros_like(weight) for _ in range(2)]
    for grad, factor in zip(grads, (1, 5), strict=True):
        extension.deform_conv_backward_parameters(
            x, offset, factor * upstream, grad, columns, columns, scale=1, **sizes
        )
    torch.testing.assert_close(5 * grads[0], grads[1])


@pytest.mark.parametrize("pack", [DeformConv2dPack, ModulatedDeformConv2dPack])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [True, False])
def test_layers_in_half_precision(device, pack, dtype, autocast):
    torch.manual_seed(0)
    layer = pack(4, 6, 3, padding=1, deform_groups=2).to(device)
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.1)
    x = torch.randn(2, 4, 8, 8, device=device)
    expected = layer(x)
    expected.sum().backward()
    wanted = {name: parameter.grad for name, parameter in layer.named_parameters()}
    layer.zero_grad()
    if autocast:
        with torch.autocast(device, dtype=dtype):
            output = layer(x)
    else:
        output = layer.to(dtype)(x.to(dtype))
    output.float().sum().backward()
    assert output.dtype == dtype
    scale = expected.abs().max()
    assert (output.float() - expected).abs().max() < 0.05 * scale
    for name, parameter in layer.named_parameters():
        error = (parameter.grad.float() - wanted[name]).norm()
        assert error < 0.1 * wanted[name].norm(), name
