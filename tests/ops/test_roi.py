from __future__ import annotations

import math

import pytest
import torch
from mmcv.ops import RoIAlign, roi_align, roi_pool
from torch import Tensor
from torch.autograd import gradcheck

# On one image and the other; over the border, without area, thinner than a cell, the whole map,
# above it and left of it.
REGIONS = [
    [0, 1.0, 2.0, 12.0, 9.5],
    [1, 3.3, 0.7, 7.9, 13.2],
    [0, -6.0, -4.0, 5.0, 6.0],
    [1, 10.0, 8.0, 40.0, 30.0],
    [0, 5.0, 5.0, 5.0, 5.0],
    [1, 4.1, 4.2, 4.9, 11.0],
    [0, 0.0, 0.0, 16.0, 16.0],
    [1, 2.0, -20.0, 9.0, -9.0],
    [0, -20.0, 2.0, -9.0, 9.0],
]
SCALE, HEIGHT, WIDTH = 0.5, 8, 9


def features(dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    return values.to(device, dtype)


def regions(dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    return torch.tensor(REGIONS, dtype=dtype, device=device)


def bilinear(plane: Tensor, y: float, x: float) -> float:
    if not (-1 <= y <= HEIGHT and -1 <= x <= WIDTH):
        return 0.0
    y, x = min(max(y, 0), HEIGHT - 1), min(max(x, 0), WIDTH - 1)
    total = 0.0
    for row in range(HEIGHT):
        for column in range(WIDTH):
            total += (
                max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column)) * float(plane[row, column])
            )
    return total


def align_reference(size, ratio: int, mode: str, aligned: bool) -> Tensor:
    output = torch.zeros(len(REGIONS), 3, *size, dtype=torch.float64)
    shift = 0.5 if aligned else 0.0
    for k, (image, *corners) in enumerate(REGIONS):
        x1, y1, x2, y2 = (c * SCALE - shift for c in corners)
        height, width = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
        bin_h, bin_w = height / size[0], width / size[1]
        rows, columns = ratio or math.ceil(bin_h), ratio or math.ceil(bin_w)
        for channel in range(3):
            plane = features()[image, channel]
            for p in range(size[0]):
                for q in range(size[1]):
                    samples = [
                        bilinear(
                            plane,
                            y1 + (p + (i + 0.5) / rows) * bin_h,
                            x1 + (q + (j + 0.5) / columns) * bin_w,
                        )
                        for i in range(rows)
                        for j in range(columns)
                    ]
                    if samples:
                        pooled = max(samples) if mode == "max" else sum(samples) / len(samples)
                        output[k, channel, p, q] = pooled
    return output


def pool_reference(size) -> Tensor:
    output = torch.zeros(len(REGIONS), 3, *size, dtype=torch.float64)
    for k, (image, *corners) in enumerate(REGIONS):
        x1, y1 = corners[0] * SCALE, corners[1] * SCALE
        x2, y2 = (corners[2] + 1) * SCALE, (corners[3] + 1) * SCALE
        bin_h, bin_w = (y2 - y1) / size[0], (x2 - x1) / size[1]
        for p in range(size[0]):
            for q in range(size[1]):
                top, bottom = math.floor(p * bin_h + y1), math.ceil((p + 1) * bin_h + y1)
                left, right = math.floor(q * bin_w + x1), math.ceil((q + 1) * bin_w + x1)
                window = features()[
                    image, :, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)
                ]
                if window.numel():
                    output[k, :, p, q] = window.amax(dim=(1, 2))
    return output


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_against_loops(device, mode, ratio, aligned):
    output = roi_align(
        features(device=device), regions(device=device), (2, 3), SCALE, ratio, mode, aligned
    )
    torch.testing.assert_close(output.cpu(), align_reference((2, 3), ratio, mode, aligned))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_gradient(device, mode, ratio, aligned):
    rois = regions(device=device)
    assert gradcheck(
        lambda x: roi_align(x, rois, (2, 3), SCALE, ratio, mode, aligned),
        features(device=device).requires_grad_(),
        # The atomic additions on a GPU end in another order each time.
        nondet_tol=1e-12 if device == "cuda" else 0,
        fast_mode=True,
    )


def test_roi_align_maximum_leaves_negative_features_and_empty_bins_alone():
    rois = torch.tensor([[0, 4.0, 4, 4, 4], [0, 2, 2, 6, 6]], dtype=torch.float64)
    x = (features() * 0 - 2e4).requires_grad_()
    output = roi_align(x, rois, 2, SCALE, 0, "max", True)
    assert torch.equal(output[0], torch.zeros_like(output[0]))
    assert torch.equal(output[1], torch.full_like(output[1], -2e4))
    output[0].sum().backward()
    assert not x.grad.any()


def test_roi_align_takes_channels_last_and_strided_gradients():
    x = features().requires_grad_()
    y = features().contiguous(memory_format=torch.channels_last).requires_grad_()
    for mode in ("avg", "max"):
        outputs = [roi_align(z, regions(), 2, SCALE, 2, mode, True) for z in (x, y)]
        torch.testing.assert_close(*outputs)
        outputs[0].sum().backward()  # an expanded gradient: strides of zero
        (outputs[1] * torch.ones(1, 1, 2, 2)).sum().backward()
        torch.testing.assert_close(x.grad, y.grad)


def test_roi_pool_against_loops(device):
    output = roi_pool(features(device=device), regions(device=device), (2, 3), SCALE)
    torch.testing.assert_close(output.cpu(), pool_reference((2, 3)))


def test_roi_pool_gradient(device):
    rois = regions(device=device)
    x = features(device=device).requires_grad_()
    assert gradcheck(lambda x: roi_pool(x, rois, (2, 3), SCALE), x, nondet_tol=1e-12)


def test_roi_pool_of_a_region_without_area_is_zero_and_without_gradient():
    x = features().requires_grad_()
    output = roi_pool(x, torch.tensor([[0, 9.0, 9, 7.6, 7.6]], dtype=torch.float64), 2, SCALE)
    assert not output.any()
    output.sum().backward()
    assert not x.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_roi_layers_in_narrow_types(device, dtype, autocast):
    """As in float64, up to the rounding of the features and the result."""
    x = features(dtype, device).requires_grad_()
    rois = regions(dtype, device)
    exact = x.detach().double().requires_grad_()
    tolerance = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 4 * torch.finfo(dtype).eps}
    for layer in (
        RoIAlign((2, 3), SCALE, 2),
        RoIAlign((2, 3), SCALE, 2, pool_mode="max"),
        lambda x, rois: roi_pool(x, rois, (2, 3), SCALE),
    ):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
            output = layer(x, rois)
        reference = layer(exact, rois.double())
        assert output.dtype == dtype
        torch.testing.assert_close(output.double(), reference, **tolerance)
        (grad,) = torch.autograd.grad(output.sum(), x)
        (expected,) = torch.autograd.grad(reference.sum(), exact)
        assert grad.dtype == dtype
        # A maximum's position is kept in the features' type, hence the wider tolerance.
        torch.testing.assert_close(grad.double(), expected, rtol=0.05, atol=16 * tolerance["atol"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_regions(device, dtype):
    x = features(dtype, device).requires_grad_()
    rois = torch.zeros(0, 5, dtype=dtype, device=device)
    for output in (
        roi_align(x, rois, 7, SCALE, 0, "avg", True),
        roi_align(x, rois, 7, SCALE, 0, "max", True),
        roi_pool(x, rois, 7, SCALE),
    ):
        assert output.shape == (0, 3, 7, 7)
        (grad,) = torch.autograd.grad(output.sum(), x)
        assert torch.equal(grad, torch.zeros_like(x))
