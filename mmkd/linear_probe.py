"""How well a linear map tells from a feature what the images show where."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import one_hot, pad
from torch.nn.utils.rnn import pad_sequence

from mmkd.distributed import is_synchronized
from mmkd.features import as_samples, pair_as_maps
from mmkd.numerics import at_least_float32
from mmkd.targets import Boxes, Targets

__all__ = ["LinearProbe", "ProbedPair", "classes_on_grid"]

# No object's, and no clear case: within a box, but not in its middle.
BACKGROUND, BORDER = 0, -1
# Of a batch: so many images, and so many locations on objects at most and as many elsewhere.
_IMAGES, _LOCATIONS = 16, 1024
# Ridge penalties by which the best held-out score is found, for features of variance 1.
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
# Batches are dealt to so many groups; each is scored by the fit to the others.
_GROUPS = 4
_LARGEST_WIDTH = 2048
# Fewer locations on objects tell nothing.
_FEWEST = 100


def classes_on_grid(boxes: Sequence[Boxes], size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """What each cell of a feature's grid shows, ``[N, h, w]``.

    Args:
        boxes: Of N images.
        size: Height and width of the padded batch in pixels.
        grid: ``(h, w)``.

    Returns:
        A box's class, counted from 1, where its middle half covers the cell's centre, and in the
        cell of its own centre (the smallest such box's); 0 where no box covers the cell's centre;
        -1 elsewhere.
    """
    # Boxes [N, K], of which NaN stands for none, along an axis of its own; cells along the last.
    corners = pad_sequence([each.corners.float() for each in boxes], True, math.nan)
    classes = pad_sequence([each.classes.long() for each in boxes], True)
    if not corners.shape[1]:
        return classes.new_full((len(boxes), *grid), BACKGROUND)
    scale = corners.new_tensor([grid[1] / size[1], grid[0] / size[0]]).repeat(2)
    low, high = (corners * scale).split(2, dim=2)
    order = (high - low).prod(dim=2).argsort(dim=1)
    classes = classes.gather(1, order)
    low, high = (each.gather(1, order[..., None].expand_as(each)) for each in (low, high))
    centre, extent = ((low + high) / 2)[..., None], (high - low).clamp_min(0)[..., None]
    inside, middle = [], []
    for axis, cells in ((0, grid[1]), (1, grid[0])):
        at = torch.arange(cells, device=corners.device)
        away = (at + 0.5 - centre[:, :, axis]).abs()
        own = centre[:, :, axis].floor() == at
        inside.append((away <= extent[:, :, axis] / 2) | own)
        middle.append((away <= extent[:, :, axis] / 4) | own)
    is_inside, is_middle = (x[:, :, None, :] & y[:, :, :, None] for x, y in (inside, middle))
    # The first that covers a cell, and so the smallest.
    first = is_middle.byte().argmax(dim=1)
    of_first = classes.gather(1, first.flatten(1)).view_as(first)
    elsewhere = torch.where(is_inside.any(dim=1), BORDER, BACKGROUND)
    return torch.where(is_middle.any(dim=1), of_first + 1, elsewhere)


class LinearProbe:
    """Ridge regression from a feature's C channels to what its locations show, in closed form.

    Only sums of products are kept, so that the fit costs one product of matrices a batch.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._shift: Tensor | None = None
        self._sums: Tensor | None = None

    def add(self, group: int, samples: Tensor, classes: Tensor) -> None:
        """Takes account of locations.

        Args:
            group: 0 to 3: to which part of the data they belong.
            samples: ``[M, C]``.
            classes: ``[M]``, from 0 up.
        """
        with torch.autocast(device_type=samples.device.type, enabled=False), torch.no_grad():
            values = at_least_float32(samples)
            if self._shift is None:
                # What float32 sums up should lie near 0.
                self._shift = values.mean(dim=0)
            shown = one_hot(classes).to(values)
            joined = torch.cat([values - self._shift, torch.ones_like(values[:, :1]), shown], dim=1)
            found = joined.T @ joined
            if self._sums is None:
                self._sums = found.new_zeros(_GROUPS, *found.shape)
            size = max(len(found), self._sums.shape[1])
            self._sums = _padded(self._sums, size)
            self._sums[group] += _padded(found, size)

    def scores(self, device: torch.device) -> Tensor | None:
        """R² on the locations of each group, by the fit to those of the others, ``[4]`` in float64.

        It is over all classes together: 1 less the squared error's share in the variance. The
        penalty is the one that scores best. None where there are too few objects.

        Args:
            device: On which processes exchange their sums.
        """
        sums = self._all_sums(device)
        one = self._width
        counts = sums[:, one, one + 1 :]
        if counts.shape[1] < 2 or counts[:, 1:].sum() < _FEWEST or (counts.sum(dim=1) == 0).any():
            return None
        found = [
            [_score(sums.sum(dim=0) - held_out, held_out, one, each) for each in _PENALTIES]
            for held_out in sums
        ]
        by_penalty = torch.tensor(found, dtype=torch.float64).T
        return by_penalty[by_penalty.mean(dim=1).argmax()]

    def _all_sums(self, device: torch.device) -> Tensor:
        """Of all processes, in float64 and without the shift, which is each process's own."""
        least = self._width + 1
        sums = torch.zeros(_GROUPS, least, least, dtype=torch.float64)
        if self._sums is not None and self._shift is not None:
            sums = self._sums.cpu().double()
            back = torch.eye(sums.shape[1], dtype=torch.float64)
            back[self._width, : self._width] = self._shift.cpu().double()
            sums = back.T @ sums @ back
        if is_synchronized(None):
            size = torch.tensor(sums.shape[1], device=device)
            dist.all_reduce(size, dist.ReduceOp.MAX)
            shared = _padded(sums, int(size)).to(device)
            dist.all_reduce(shared)
            sums = shared.cpu()
        return sums


def _padded(sums: Tensor, size: int) -> Tensor:
    more = size - sums.shape[-1]
    return pad(sums, (0, more, 0, more)) if more else sums


def _score(fit: Tensor, held_out: Tensor, one: int, penalty: float) -> float:
    """R² on what is held out.

    Args:
        fit, held_out: Sums of products of ``one`` channels, a 1, and a column a class.
        one: C.
        penalty: For channels of variance 1.
    """
    mean = fit[one] / fit[one, one]
    products = fit / fit[one, one] - mean[:, None] * mean
    spread = products.diagonal()[:one].clamp_min(1e-12 * mean[:one].square() + 1e-30).sqrt()
    correlations = products[:one, :one] / spread[:, None] / spread
    across = products[:one, one + 1 :] / spread[:, None]
    ridge = correlations + penalty * torch.eye(one, dtype=fit.dtype)
    weights = torch.linalg.solve(ridge, across) / spread[:, None]
    # A location's columns times these are its classes' columns less what is predicted of them.
    offset = mean[one + 1 :] - mean[:one] @ weights
    residual = torch.cat([-weights, -offset[None], torch.eye(len(offset), dtype=fit.dtype)])
    error = (residual * (held_out @ residual)).sum()
    counts = held_out[one, one + 1 :]
    variance = counts.sum() - counts.square().sum() / held_out[one, one]
    return float(1 - error / variance)


class ProbedPair:
    """A probe each of a student's and a teacher's feature, at the same locations."""

    def __init__(self) -> None:
        self._probes: tuple[LinearProbe, LinearProbe] | None = None
        self._device = torch.device("cpu")
        self._batches = 0

    @torch.no_grad()
    def add(self, student: Tensor, teacher: Tensor, targets: Targets) -> bool:
        """Takes account of a batch.

        Args:
            student: ``[N, C_s, H, W]``; of another rank it is not taken.
            teacher: Likewise; the finer grid is pooled to the coarser one.
            targets: With boxes; without, it is not taken.

        Returns:
            Whether it was taken.
        """
        if (
            student.ndim != 4
            or teacher.ndim != 4
            or max(_widths(student, teacher)) > _LARGEST_WIDTH
        ):
            return False
        pair = pair_as_maps(
            at_least_float32(student[:_IMAGES]), at_least_float32(teacher[:_IMAGES])
        )
        grid = (pair[0].shape[2], pair[0].shape[3])
        if grid == (1, 1):
            return False
        try:
            boxes = targets.boxes
        except ValueError:
            return False
        classes = classes_on_grid(boxes[:_IMAGES], targets.size, grid).flatten().to(student.device)
        if self._probes is None:
            ours, theirs = _widths(student, teacher)
            self._probes = LinearProbe(ours), LinearProbe(theirs)
            self._device = student.device
        objects = _some((classes > BACKGROUND).nonzero().flatten())
        elsewhere = _some((classes == BACKGROUND).nonzero().flatten())
        chosen = torch.cat([objects, elsewhere])
        if len(chosen):
            for probe, feature in zip(self._probes, pair, strict=True):
                probe.add(self._batches % _GROUPS, as_samples(feature)[chosen], classes[chosen])
        self._batches += 1
        return True

    def scores(self) -> tuple[Tensor, Tensor] | None:
        """The student's and the teacher's, group by group; None where they are not known."""
        if self._probes is None:
            return None
        student, teacher = (probe.scores(self._device) for probe in self._probes)
        return None if student is None or teacher is None else (student, teacher)


def _widths(student: Tensor, teacher: Tensor) -> tuple[int, int]:
    return student.shape[1], teacher.shape[1]


def _some(positions: Tensor) -> Tensor:
    """At most so many, evenly spread."""
    if len(positions) <= _LOCATIONS:
        return positions
    chosen = torch.arange(_LOCATIONS, device=positions.device) * len(positions) // _LOCATIONS
    return positions[chosen]
