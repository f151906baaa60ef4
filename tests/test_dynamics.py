"""What is measured inside a term is what the term compares."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmkd import FeatureDistiller
from mmkd.analysis import input_output_correlation, linear_cka
from mmkd.analysis.samples import drawn_rows
from mmkd.dynamics import term_dynamics
from mmkd.features import pooled
from mmkd.targets import Boxes, Targets

SIZE = (32, 32)
IMAGES, OURS, THEIRS = 12, 3, 5
NO_NORMALIZER = dict(type="mmkd.IdentityNormalizer")


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distiller(**parts: Any) -> FeatureDistiller:
    parts = {"loss": dict(type="mmkd.MSELoss"), **parts}
    return FeatureDistiller(OURS, THEIRS, **parts)


def maps(seed: int = 0, grid: int = 4) -> tuple[Tensor, Tensor]:
    """The teacher's partly the student's."""
    ours = drawn(seed, IMAGES, OURS, grid, grid).relu()
    told = torch.einsum("tc,nchw->nthw", drawn(seed + 1, THEIRS, OURS), ours)
    return ours, told + 0.5 * drawn(seed + 2, IMAGES, THEIRS, grid, grid)


def measured(of: FeatureDistiller, ours: Tensor, theirs: Tensor, **shown: Any) -> dict[str, Any]:
    return term_dynamics(of, [ours], [theirs], Targets(SIZE, **shown))


def least_squares(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias from the locations of either map."""
    x, y = (side.movedim(1, -1).flatten(0, 2).double() for side in (ours, theirs))
    solved = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], dim=1), y).solution
    return solved[:-1].T.float(), solved[-1].float()


@pytest.mark.parametrize("normalizer", [NO_NORMALIZER, dict(type="mmkd.BatchNormalizer")])
def test_a_projector_rests_where_its_distance_is_least(normalizer: dict) -> None:
    ours, theirs = maps()
    of = distiller(normalizer=normalizer, view="dense")
    linear = of.projector.linear
    assert measured(of, ours, theirs)["rest"] > 0.3
    weight, bias = least_squares(ours, theirs)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    assert measured(of, ours, theirs)["rest"] < 1e-5
    # There the distance's own gradient is 0 too.
    of(ours, theirs).backward()
    assert linear.weight.grad.abs().max() < 1e-3 * weight.abs().max()


def test_batch_norm_decides_scale_and_place_of_what_is_measured() -> None:
    ours, theirs = maps()
    boxes = [Boxes(torch.tensor([[4.0, 4.0, 20.0, 20.0]]), torch.tensor([0]))] * IMAGES
    of = distiller(view="dense", normalizer=dict(type="mmkd.BatchNormalizer", eps=1e-12))
    before = measured(of, ours, theirs, boxes=boxes)
    distance = of(ours, theirs).item()
    with torch.no_grad():
        scales = torch.linspace(0.2, 30, THEIRS)
        of.projector.linear.weight.mul_(scales[:, None])
        of.projector.linear.bias.mul_(scales).add_(7)
    assert of(ours, theirs).item() == pytest.approx(distance, rel=1e-4)
    after = measured(of, ours, theirs, boxes=boxes)
    names = {"rest", "passes", "cosine_inside", "cosine_outside"}
    assert names <= set(before)
    assert all(after[name] == pytest.approx(before[name], rel=1e-4) for name in names)


def test_a_pooled_term_s_projector_is_measured_on_what_is_pooled() -> None:
    ours, theirs = maps()
    projector = dict(type="mmkd.MLPProjector", hidden_channels=None)
    of = distiller(view="global", projector=projector)
    found = measured(of, ours, theirs, boxes=[Boxes(torch.zeros(0, 4), torch.zeros(0))] * IMAGES)
    inputs = pooled(ours)
    with torch.no_grad():
        expected = input_output_correlation(inputs, of.projector(inputs))
    assert found["passes"] == pytest.approx(expected, rel=1e-5)
    # Features are what they are, wherever the term looks at them.
    assert found["cka"] == measured(distiller(view="dense"), ours, theirs)["cka"]
    assert not any(name.startswith("cosine_") for name in found)


def test_objects_of_different_classes() -> None:
    """Each the mean over its box, here of whole cells of 8 pixels."""
    ours, theirs = maps()
    nothing = Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    left = torch.tensor([[0.0, 0.0, 16.0, 32.0], [16.0, 8.0, 32.0, 16.0]])
    top = torch.tensor([[8.0, 0.0, 16.0, 8.0]])
    boxes = [Boxes(left, torch.tensor([1, 0])), Boxes(top, torch.tensor([1]))]
    found = measured(distiller(), ours, theirs, boxes=[*boxes, *[nothing] * (IMAGES - 2)])
    for name, side in (("between_classes", ours), ("teacher_between_classes", theirs)):
        first, second = side[0, :, :, :2].mean(dim=(1, 2)), side[0, :, 1, 2:].mean(dim=1)
        cosines = torch.cosine_similarity(torch.stack([first, side[1, :, 0, 1]]), second[None])
        assert found[name] == pytest.approx(float(cosines.mean()), rel=1e-4)


def test_extra_tokens_are_no_patches() -> None:
    ours, theirs = maps()
    of = distiller(view="dense", student_extra_tokens=2)
    tokens = torch.cat([100 * drawn(9, IMAGES, 2, OURS), ours.flatten(2).transpose(1, 2)], dim=1)
    expected = measured(distiller(view="dense"), ours, theirs)
    assert measured(of, tokens, theirs)["passes"] == pytest.approx(expected["passes"])
    of = distiller(view="global", student_extra_tokens=2)
    expected = linear_cka(pooled(ours), pooled(theirs))
    assert measured(of, tokens, pooled(theirs))["cka"] == pytest.approx(expected, rel=1e-5)


def test_few_samples_tell_no_correlations() -> None:
    vectors = drawn(0, 2 * OURS - 1, OURS), drawn(1, 2 * OURS - 1, THEIRS)
    assert set(measured(distiller(view="global"), *vectors)) == {"cka"}
    vectors = drawn(0, 3, OURS), drawn(1, 3, THEIRS)
    assert measured(distiller(view="global"), *vectors) == {}
    enough = drawn(0, 2 * OURS, OURS), drawn(1, 2 * OURS, THEIRS)
    assert {"explained_variance", "passes"} <= set(measured(distiller(view="global"), *enough))


@pytest.mark.parametrize(("images", "side"), [(16, 64), (256, 8), (256, 4), (8, 64)])
def test_rows_are_of_every_row_and_column(images: int, side: int) -> None:
    kept = drawn_rows(images * side * side, 512)
    assert len(set(kept.tolist())) == 512 and kept.tolist() == sorted(kept.tolist())
    assert {int(place) % side for place in kept} == set(range(side))
    assert {int(place) // side % side for place in kept} == set(range(side))
    before = torch.random.get_rng_state()
    assert drawn_rows(5, 512).tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(before, torch.random.get_rng_state())
