"""CrossKD's distances against their definitions in plain numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mmkd import FeatureDistiller
from mmkd.losses import CrossKDLoss
from mmkd.losses.cross_kd import standardized_like
from mmkd.targets import Targets

seeds = st.integers(0, 2**16)


def pair(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return student, teacher


def scores(seed: int = 0, *grid: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 1, *(grid or (2, 3)), generator=generator, dtype=torch.float64)


def head(kernel: int = 3, out: int = 4) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(4, 4, kernel, padding=kernel // 2), nn.ReLU(), nn.Conv2d(4, out, 1)
        ).double()


@given(seed=seeds)
def test_standardized_like(seed: int) -> None:
    student, teacher = pair(seed, 2, 3, 4, 5)
    found = standardized_like(7 * student - 3, teacher)
    for channel in range(3):
        own, target = found[:, channel], teacher[:, channel]
        assert own.mean().item() == pytest.approx(target.mean().item())
        assert own.std(unbiased=False).item() == pytest.approx(target.std(unbiased=False).item())
    torch.testing.assert_close(standardized_like(teacher, teacher), teacher)


@given(seed=seeds)
def test_classes_by_loops(seed: int) -> None:
    student, teacher = pair(seed, 2, 4, 2, 3)
    rest, weights = head(), scores(seed)
    crossed, own = rest(standardized_like(student, teacher)), rest(teacher)
    total = 0.0
    for p, t in zip(crossed.flatten().tolist(), own.flatten().tolist(), strict=True):
        predicted, quality = (1 / (1 + math.exp(-v)) for v in (p, t))
        entropy = -quality * math.log(predicted) - (1 - quality) * math.log(1 - predicted)
        total += abs(predicted - quality) * entropy
    found = CrossKDLoss(rest)(student, teacher, targets=Targets((8, 8), scores=weights))
    assert found.item() == pytest.approx(total / max(1, weights.sum().item()), rel=1e-8)


@given(seed=seeds)
def test_bins_by_loops(seed: int) -> None:
    student, teacher = pair(seed, 2, 4, 2, 3)
    rest, weights = head(out=12), scores(seed)
    crossed, own = rest(standardized_like(student, teacher)), rest(teacher)
    total = 0.0
    for n in range(2):
        for y in range(2):
            for x in range(3):
                for side in range(4):
                    cells = slice(3 * side, 3 * side + 3)
                    p, q = (m[n, cells, y, x].softmax(0).tolist() for m in (crossed, own))
                    kl = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
                    total += weights[n, 0, y, x].item() * kl / 4
    loss = CrossKDLoss(rest, "bins")
    found = loss(student, teacher, targets=Targets((8, 8), scores=weights))
    assert found.item() == pytest.approx(total / max(1, weights.sum().item()), rel=1e-8)


def giou(a: list[float], b: list[float]) -> float:
    def area(box: list[float]) -> float:
        return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])

    common = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    around = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    union = area(a) + area(b) - common
    return common / union - (around - union) / around


@given(seed=seeds, anchor=st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.floats(2, 90),
                                    st.floats(2, 90)))  # fmt: skip
def test_deltas_by_the_boxes_of_any_anchor(seed: int, anchor: tuple[float, ...]) -> None:
    """Boxes are compared as if every anchor were of sides 1: GIoU does not see the difference."""
    x, y, width, height = anchor
    stds = (0.1, 0.1, 0.2, 0.2)
    student, teacher = pair(seed, 2, 4, 2, 3)
    rest, weights = head(out=8), scores(seed)
    crossed, own = rest(standardized_like(student, teacher)), rest(teacher)

    def box(values: list[float]) -> list[float]:
        dx, dy, dw, dh = (v * std for v, std in zip(values, stds, strict=True))
        cx, cy = x + dx * width, y + dy * height
        w, h = width * math.exp(dw), height * math.exp(dh)
        return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]

    total = 0.0
    for n in range(2):
        for i in range(2):
            for j in range(3):
                for a in range(2):
                    cells = slice(4 * a, 4 * a + 4)
                    boxes = (box(m[n, cells, i, j].tolist()) for m in (crossed, own))
                    total += weights[n, 0, i, j].item() * (1 - giou(*boxes)) / 2
    loss = CrossKDLoss(rest, "deltas", stds)
    found = loss(student, teacher, targets=Targets((8, 8), scores=weights))
    assert found.item() == pytest.approx(total / max(1, weights.sum().item()), rel=1e-5)


@given(seed=seeds, centre=st.tuples(st.floats(-50, 50), st.floats(-50, 50)))
def test_distances_by_the_boxes_around_any_cell(seed: int, centre: tuple[float, float]) -> None:
    """Of a few pixels up to some thousand."""
    x, y = centre
    student, teacher = pair(seed, 2, 4, 2, 3)
    rest, weights = nn.Sequential(head(), Stretched()), scores(seed)
    crossed, own = rest(standardized_like(student, teacher)), rest(teacher)

    def box(values: list[float]) -> list[float]:
        left, top, right, bottom = map(math.exp, values)
        return [x - left, y - top, x + right, y + bottom]

    total = 0.0
    for n in range(2):
        for i in range(2):
            for j in range(3):
                boxes = (box(m[n, :, i, j].tolist()) for m in (crossed, own))
                total += weights[n, 0, i, j].item() * (1 - giou(*boxes))
    loss = CrossKDLoss(rest, "distances")
    found = loss(student, teacher, targets=Targets((8, 8), scores=weights))
    assert found.item() == pytest.approx(total / max(1, weights.sum().item()), rel=1e-5)


class Stretched(nn.Module):
    """Logarithms of boxes of all sizes."""

    def forward(self, values: Tensor) -> Tensor:
        return 4 + 4 * values.tanh()


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(2, 1, 1 - 4 / 16), (60, 120, 1 - 1 / 4), (100, 300, 1 - 1 / 9), (3000, 1000, 1 - 1 / 9)],
)
def test_distances_by_hand(ours: float, theirs: float, expected: float) -> None:
    """Of one cell: a square within another around the same cell, in pixels."""
    student, teacher = (torch.full((1, 4, 1, 1), math.log(side)) for side in (ours, theirs))
    loss = CrossKDLoss(nn.Identity(), "distances")
    value = loss._of_boxes(student.requires_grad_(), teacher)
    assert value.item() == pytest.approx(expected)
    [gradient] = torch.autograd.grad(value.sum(), student)
    assert gradient.abs().min() > 0


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_distances_of_any_size_are_finite(kind: torch.dtype) -> None:
    values = torch.tensor([-100.0, 0.0, 50.0, 100.0]).to(kind).view(1, 4, 1, 1)
    ours, theirs = values.clone().requires_grad_(), values.flip(1)
    loss = CrossKDLoss(nn.Identity(), "distances")._of_boxes(ours.float(), theirs.float())
    [gradient] = torch.autograd.grad(loss.sum(), ours)
    assert loss.isfinite().all() and gradient.isfinite().all()


@pytest.mark.parametrize("compare", ["classes", "bins"])
@pytest.mark.parametrize(("factor", "expected"), [(1.0, 10.0), (0.01, 1.0)])
def test_several_levels_share_a_denominator(compare: str, factor: float, expected: float) -> None:
    """The sum of q over both, or 1 where that is less."""
    rest, weights = head(out=8), scores(3)
    total = torch.tensor(10.0 * factor)
    of_all = Targets((8, 8), scores=weights, total_score=total)
    loss = CrossKDLoss(rest, compare)  # type: ignore[arg-type]
    found = loss(*pair(5, 2, 4, 2, 3), targets=of_all).item()
    alone = loss(*pair(5, 2, 4, 2, 3), targets=Targets((8, 8), scores=weights)).item()
    assert found * expected == pytest.approx(alone * weights.sum().item(), rel=1e-6)


def test_equal_sides_give_zero() -> None:
    _, teacher = pair(0, 2, 4, 2, 3)
    targets = Targets((8, 8), scores=scores())
    for compare, width in (("classes", 4), ("bins", 12), ("deltas", 8), ("distances", 4)):
        loss = CrossKDLoss(head(out=width), compare)  # type: ignore[arg-type]
        assert loss(teacher, teacher, targets=targets).item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_s_layers_stay_its_own() -> None:
    rest = head()
    loss = CrossKDLoss(rest)
    assert not list(loss.parameters()) and not loss.state_dict()


@pytest.mark.parametrize(
    ("compare", "fitting", "other"),
    [("bins", 12, 4), ("bins", 8, 10), ("deltas", 36, 6), ("distances", 4, 8)],
)
def test_what_the_teacher_s_layers_give_is_looked_at(
    compare: str, fitting: int, other: int
) -> None:
    settings = dict(type="mmkd.CrossKDLoss", compare=compare)
    FeatureDistiller(3, 4, loss=settings, teacher_classifier=head(out=fitting))
    said = rf"compare='{compare}' does not fit the {other} channels that teacher_classifier gives"
    with pytest.raises(ValueError, match=said):
        FeatureDistiller(3, 4, loss=settings, teacher_classifier=head(out=other))


def test_looking_changes_no_statistics() -> None:
    rest = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).train()
    before = {name: value.clone() for name, value in rest.state_dict().items()}
    settings = dict(type="mmkd.CrossKDLoss", compare="distances")
    FeatureDistiller(4, 4, loss=settings, teacher_classifier=rest)
    assert rest.training and rest[0].training
    assert all(torch.equal(value, before[name]) for name, value in rest.state_dict().items())


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="compare must be one of"):
        CrossKDLoss(nn.Identity(), "boxes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stds must hold 4 numbers above 0"):
        CrossKDLoss(nn.Identity(), "deltas", (1, 1))
