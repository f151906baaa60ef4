"""RoIAlign and RoIPool, with the names and conventions of ``mmcv._ext``.

Shapes: N images, C channels, H x W cells, K regions, h x w bins. ``input`` is ``[N, C, H, W]``,
``rois`` is ``[K, 5]`` as ``(image index, x1, y1, x2, y2)``, ``output`` is ``[K, C, h, w]``. Every
function writes into the buffers it is given; gradients are added to what the buffer holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import torchvision  # noqa: F401  (loads the operators behind torch.ops.torchvision)
from torch import Tensor

from .precision import common_float

__all__ = ["roi_align_backward", "roi_align_forward", "roi_pool_backward", "roi_pool_forward"]

MAX = 0  # mmcv's code for pool_mode='max'; 1 is 'avg'
NOWHERE = -2.0  # the coordinate of a maximum over no samples: off every map, so without gradient


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool bilinear samples of each bin (He et al., ICCV 2017) by their mean or maximum.

    ``sampling_ratio`` samples a bin along each axis, or one a cell where it is 0. ``aligned``
    shifts the samples by half a cell. Maxima leave the coordinates of their samples in
    ``argmax_y`` and ``argmax_x``, both ``[K, C, h, w]``; a bin without samples is 0 (the compiled
    operator leaves -10000 in it).
    """
    features, regions = common_float(input, rois)
    if pool_mode != MAX:
        output.copy_(
            torch.ops.torchvision.roi_align(
                features,
                regions,
                spatial_scale,
                aligned_height,
                aligned_width,
                sampling_ratio,
                aligned,
            )
        )
        return
    best, y, x = _max_sample(
        features, regions, aligned_height, aligned_width, spatial_scale, sampling_ratio, aligned
    )
    for buffer, values in ((output, best), (argmax_y, y), (argmax_x, x)):
        buffer.copy_(values.permute(0, 3, 1, 2))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of :func:`roi_align_forward` to ``grad_input``."""
    grad, regions = common_float(grad_output, rois)
    if pool_mode != MAX:
        grad_input += torch.ops.torchvision._roi_align_backward(
            grad,
            regions,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
        return
    _, channels, height, width = grad_input.shape
    planes = regions[:, 0].long()[:, None] * channels + torch.arange(channels, device=grad.device)
    spread = grad.new_zeros(grad_input.numel())
    y, x = common_float(argmax_y, argmax_x)
    for cell, weight in _corners(y, x, height, width):
        cell += planes[:, :, None, None] * height * width
        spread.index_add_(0, cell.flatten(), (grad * weight).flatten())
    grad_input += spread.view(grad_input.shape)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Maximum over the whole cells that each bin touches (Girshick, ICCV 2015).

    ``argmax`` receives the flat index of the maximal cell in its ``H x W`` plane, or -1 for a bin
    off the map or of a region without area, which is 0. mmcv cuts a region into bins before it
    rounds them to cells; torchvision rounds the region first, hence one torchvision region a bin.
    """
    features, regions = common_float(input, rois)
    height, width = features.shape[2:]
    x1, y1 = (regions[:, 1:3] * spatial_scale).unbind(1)
    x2, y2 = ((regions[:, 3:] + 1) * spatial_scale).unbind(1)
    left, right = (edge[:, None, :] for edge in _bin_edges(x1, x2, pooled_width, width))
    top, bottom = (edge[:, :, None] for edge in _bin_edges(y1, y2, pooled_height, height))
    # torchvision widens an empty region to one cell: beyond the right border it finds none.
    left = torch.where((right > left) & (bottom > top), left, width)
    image = regions[:, 0, None, None]
    bins = torch.stack(torch.broadcast_tensors(image, left, top, right - 1, bottom - 1), dim=-1)
    pooled = torch.ops.torchvision.roi_pool(features, bins.flatten(0, 2), 1.0, 1, 1)
    for buffer, values in zip((output, argmax), pooled, strict=True):
        buffer.copy_(values.view(*bins.shape[:3], features.shape[1]).permute(0, 3, 1, 2))


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient of :func:`roi_pool_forward` to ``grad_input``."""
    grad, regions = common_float(grad_output, rois)
    grad_input += torch.ops.torchvision._roi_pool_backward(
        grad, regions, argmax, spatial_scale, pooled_height, pooled_width, *grad_input.shape
    )


def _bin_edges(start: Tensor, end: Tensor, bins: int, cells: int) -> tuple[Tensor, Tensor]:
    """First cell and the one past the last of each bin of ``[start, end)``, both ``[K, bins]``."""
    size = ((end - start) / bins)[:, None]
    index = torch.arange(bins, device=start.device)
    first = (index * size + start[:, None]).floor().clamp(0, cells)
    last = ((index + 1) * size + start[:, None]).ceil().clamp(0, cells)
    return first, torch.where(size > 0, last, first)


def _max_sample(
    features: Tensor,
    regions: Tensor,
    bins_y: int,
    bins_x: int,
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest bilinear sample of each bin and its y and x, each ``[K, h, w, C]``.

    Takes one sample of every bin at a time, so memory stays that of the output.
    """
    channels, height, width = features.shape[1:]
    cells = features.permute(0, 2, 3, 1).reshape(-1, channels)
    first_cell = regions[:, 0].long() * height * width
    start, bin_size = _bin_grid(regions, bins_y, bins_x, spatial_scale, aligned)
    samples = torch.full_like(bin_size, sampling_ratio) if sampling_ratio > 0 else bin_size.ceil()

    best = features.new_full((len(regions), bins_y, bins_x, channels), -torch.inf)
    best_y, best_x = torch.full_like(best, NOWHERE), torch.full_like(best, NOWHERE)
    most_y, most_x = samples.amax(dim=0).long().tolist() if len(regions) else (0, 0)
    for step in itertools.product(range(most_y), range(most_x)):
        active = (samples > samples.new_tensor(step)).all(dim=1).nonzero().squeeze(1)
        y, x = (
            start[active, axis, None]
            + torch.arange(bins, device=start.device) * bin_size[active, axis, None]
            + ((step[axis] + 0.5) * bin_size[active, axis] / samples[active, axis])[:, None]
            for axis, bins in enumerate((bins_y, bins_x))
        )
        y, x = torch.broadcast_tensors(y[:, :, None], x[:, None, :])
        value = cells.new_zeros(*y.shape, channels)
        for cell, weight in _corners(y, x, height, width):
            value += cells[first_cell[active, None, None] + cell] * weight[..., None]
        better = value > best[active]
        for kept, candidate in ((best, value), (best_y, y[..., None]), (best_x, x[..., None])):
            kept[active] = torch.where(better, candidate, kept[active])
    return best.masked_fill(best == -torch.inf, 0), best_y, best_x


def _bin_grid(
    regions: Tensor, bins_y: int, bins_x: int, spatial_scale: float, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Where each region starts on the map and the size of its bins, both ``[K, 2]`` as (y, x)."""
    shift = 0.5 if aligned else 0.0
    start = regions[:, [2, 1]] * spatial_scale - shift
    size = regions[:, [4, 3]] * spatial_scale - shift - start
    if not aligned:
        size = size.clamp(min=1)
    return start, size / regions.new_tensor([bins_y, bins_x])


def _corners(y: Tensor, x: Tensor, height: int, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The four cells around each point, as flat indices, with their bilinear weights.

    Points up to one cell off the map count as on its border; others weigh 0.
    """
    on_map = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    for row, row_weight in ((top, top + 1 - y), ((top + 1).clamp(max=height - 1), y - top)):
        for column, weight in ((left, left + 1 - x), ((left + 1).clamp(max=width - 1), x - left)):
            yield row.long() * width + column.long(), row_weight * weight * on_map
