from __future__ import annotations

import copy
import math
import pickle
from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mmkd.features import (
    FeatureTaps,
    channels_of,
    check_layout,
    find_module,
    pair_as_samples,
    select,
    without_extra_tokens,
)


class _Block(nn.Module):
    """Adds 1; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x + 1


class _Stage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(_Block(), _Block())

    def forward(self, x: Tensor) -> Tensor:
        return 10 * self.inner(x)


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1 = _Stage()
        self.layer2 = _Stage()
        self.head = _Block()
        self.unused = _Block()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(x)))


def _hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# Taps


def test_nested_modules_are_recorded() -> None:
    model = _Net()
    taps = FeatureTaps(model, ["layer1", "layer1.inner.0", "head"])
    with taps.recording():
        output = model(torch.zeros(1))
    recorded = taps.take()
    assert {path: x.item() for path, x in recorded.items()} == {
        "layer1": 20,
        "layer1.inner.0": 1,
        "head": output.item(),
    }


def test_the_whole_model_can_be_tapped() -> None:
    model = _Net()
    taps = FeatureTaps(model, [""])
    with taps.recording():
        output = model(torch.zeros(1))
    assert taps.take()[""] is output


def test_a_repeated_path_is_one_tap() -> None:
    model = _Net()
    taps = FeatureTaps(model, ["head", "head"])
    assert taps.paths == ("head",)
    with taps.recording():
        model(torch.zeros(1))
    assert list(taps.take()) == ["head"]


def test_nothing_is_recorded_outside() -> None:
    model = _Net()
    taps = FeatureTaps(model, ["head"])
    with taps.recording():
        model(torch.zeros(1))
    model(torch.ones(1))
    assert taps.take()["head"].item() == 221
    model(torch.ones(1))
    with pytest.raises(RuntimeError, match="'head' did not run in this forward pass"):
        taps.take()


def test_recording_begins_empty_and_take_forgets() -> None:
    model = _Net()
    taps = FeatureTaps(model, ["head"])
    for start in (0.0, 1.0):
        taps.arm()
        model(torch.full((1,), start))
    assert taps.take()["head"].item() == 321
    model(torch.zeros(1))
    with pytest.raises(RuntimeError, match="did not run"):
        taps.take()


@pytest.mark.parametrize(
    ("paths", "ran"),
    [
        (["layer1.inner.0"], [1, 0, 0, 0, 0]),
        (["layer1"], [1, 1, 0, 0, 0]),
        (["layer2.inner.0", "layer1"], [1, 1, 1, 0, 0]),
        (["layer2"], [1, 1, 1, 1, 0]),
        (["head"], [1, 1, 1, 1, 1]),
    ],
)
def test_nothing_runs_beyond_the_deepest_tap(paths: list[str], ran: list[int]) -> None:
    model = _Net()
    taps = FeatureTaps(model, paths, stop_when_complete=True)
    with taps.recording():
        model(torch.zeros(1))
    blocks = [*model.layer1.inner, *model.layer2.inner, model.head]
    assert [block.calls for block in blocks] == ran
    assert set(taps.take()) == set(paths)
    model(torch.zeros(1))
    assert model.head.calls == ran[-1] + 1, "outside recording the forward pass is whole"


def test_a_module_run_twice() -> None:
    shared = _Block()
    model = nn.Sequential(OrderedDict(a=shared, b=nn.Identity(), c=shared))
    taps = FeatureTaps(model, ["a"])
    with taps.recording():
        model(torch.zeros(1))
    with pytest.raises(RuntimeError, match="'a' ran 2 times in one forward pass: tap a module"):
        taps.take()


@pytest.mark.parametrize("stop", [True, False])
def test_a_module_that_does_not_run(stop: bool) -> None:
    model = _Net()
    taps = FeatureTaps(model, ["layer1", "unused"], stop_when_complete=stop)
    with taps.recording():
        model(torch.zeros(1))
    with pytest.raises(RuntimeError, match="'unused' did not run"):
        taps.take()


def test_an_unknown_path_lists_what_is_close() -> None:
    with pytest.raises(ValueError, match=r"_Net has no module 'layer3'\. Close matches: .*layer2"):
        FeatureTaps(_Net(), ["layer3"])
    with pytest.raises(ValueError, match="Its top-level modules: layer1, layer2, head, unused"):
        find_module(_Net(), "xyz")


def test_an_unknown_path_leaves_no_hooks() -> None:
    model = _Net()
    with pytest.raises(ValueError, match="has no module"):
        FeatureTaps(model, ["layer1", "layer9"])
    assert _hooks(model) == 0


def test_detach_leaves_no_hooks() -> None:
    model = _Net()
    taps = FeatureTaps(model, ["layer1", "layer2.inner.1"])
    assert _hooks(model) == 2
    taps.detach()
    taps.detach()
    assert _hooks(model) == 0


@pytest.mark.parametrize("stop", [True, False])
def test_exceptions_pass_and_leave_it_unarmed(stop: bool) -> None:
    model = _Net()
    taps = FeatureTaps(model, ["layer1", "head"], stop_when_complete=stop)
    with pytest.raises(KeyError, match="from inside"), taps.recording():
        model.layer1(torch.zeros(1))
        raise KeyError("from inside")
    model(torch.zeros(1))
    with pytest.raises(RuntimeError, match="'head' did not run"):
        taps.take()


def test_gradients_pass_through_what_was_recorded() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    taps = FeatureTaps(model, ["0"])
    with taps.recording():
        model(torch.ones(1, 2))
    taps.take()["0"].sum().backward()
    assert model[0].weight.grad.tolist() == [[1, 1]] * 3


# Selection


def test_select() -> None:
    a, b, c = (torch.zeros(1, k) for k in (1, 2, 3))
    assert select(a) is a
    assert select(a, 0) is a
    for outputs in ((a, b, c), [a, b, c]):
        assert select(outputs) is c
        assert select(outputs, 0) is a
        assert select(outputs, -2) is b
    assert select({"p3": a, "p4": b}) is b
    assert select({"p3": a, "p4": b}, "p3") is a
    assert select({0: a, 1: b}, 0) is a


@pytest.mark.parametrize(
    ("output", "level", "message"),
    [
        (torch.zeros(1, 2), 1, "level 1 was asked of a single tensor: use -1"),
        ((torch.zeros(1, 2),), 1, "level 1 was asked of 1 outputs"),
        ((torch.zeros(1, 2),), "p3", "level 'p3' was asked of 1 outputs"),
        ((), -1, "level -1 was asked of 0 outputs"),
        ({"p3": torch.zeros(1, 2)}, "p4", r"level 'p4' was asked of the keys \['p3'\]"),
        ({}, -1, r"level -1 was asked of the keys \[\]"),
        (3.0, -1, "the output is a float, which holds no feature"),
        (None, -1, "the output is a NoneType"),
        ((None,), -1, r"a feature is \[N, C\], .* got a NoneType"),
        (torch.zeros(3), -1, r"a feature is .* got shape \(3,\)"),
        (torch.zeros(1, 1, 1, 1, 1), -1, r"a feature is .* got shape \(1, 1, 1, 1, 1\)"),
    ],
)
def test_select_refuses(output: object, level: int | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(output, level)


def test_channels() -> None:
    assert channels_of(torch.zeros(2, 3)) == 3
    assert channels_of(torch.zeros(2, 5, 3)) == 3
    assert channels_of(torch.zeros(2, 3, 5, 7)) == 3


# Layout


SIZES = [(224, 224), (128, 128), (800, 1216), (1216, 800), (720, 1280), (333, 500), (64, 64)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [2, 4, 7, 8, 16, 32])
def test_maps_of_any_network_pass(size: tuple[int, int], stride: int) -> None:
    """Rounded up or down, and with a row and a column fewer, as convolutions without padding."""
    for channels in (1, 3, 24, 64, 96, 256, 768, 2048):
        for cut in (0, stride - 1, -1):
            grid = [max((side + cut) // stride, 1) for side in size]
            check_layout(torch.empty(1, channels, *grid, device="meta"), size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("stride", "channels"), [(4, 96), (8, 192), (16, 384), (32, 768)])
def test_channels_last_are_refused(size: tuple[int, int], stride: int, channels: int) -> None:
    """Of the maps of a Swin."""
    grid = [-(-side // stride) for side in size]
    feature = torch.empty(1, *grid, channels, device="meta")
    with pytest.raises(ValueError, match=rf", {channels}\) of one image .* has its channels last"):
        check_layout(feature, size)


def test_tokens_first_are_refused() -> None:
    check_layout(torch.empty(1, 196, 64), (224, 224))
    check_layout(torch.empty(1, 1, 64), (224, 224))
    with pytest.raises(ValueError, match=r"\(196, 1, 64\) of one image .* has its tokens first"):
        check_layout(torch.empty(196, 1, 64), (224, 224))


# Extra tokens


@given(n=st.integers(1, 3), length=st.integers(1, 5), extra=st.integers(0, 3))
def test_leading_tokens_are_left_out(n: int, length: int, extra: int) -> None:
    tokens = _random(n, extra + length, 4)
    left = without_extra_tokens(tokens, extra)
    assert torch.equal(left, torch.stack([tokens[:, extra + i] for i in range(length)], dim=1))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_no_extra_tokens_is_any_feature_as_it_is(shape: tuple[int, ...]) -> None:
    feature = torch.zeros(shape)
    assert without_extra_tokens(feature, 0) is feature


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 4), (2, 1, 4), (2, 3, 4, 5)])
def test_extra_tokens_that_are_not_there(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"no 2 extra tokens can be left out of shape \(2, "):
        without_extra_tokens(torch.zeros(shape), 2)


# Views


def _pooled_to(feature: Tensor, height: int, width: int) -> Tensor:
    """Average pooling to a grid, cell by cell: cell i of H covers floor(ih/H) to ceil((i+1)h/H)."""
    n, c, h, w = feature.shape
    pooled = feature.new_empty(n, c, height, width)
    for i in range(height):
        for j in range(width):
            rows = slice(i * h // height, math.ceil((i + 1) * h / height))
            columns = slice(j * w // width, math.ceil((j + 1) * w / width))
            pooled[:, :, i, j] = feature[:, :, rows, columns].mean(dim=(2, 3))
    return pooled


def _as_rows(feature: Tensor) -> Tensor:
    n, _, h, w = feature.shape
    return torch.stack([feature[k, :, i, j] for k in range(n) for i in range(h) for j in range(w)])


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


sides = st.integers(1, 6)


@given(n=st.integers(1, 3), grids=st.tuples(sides, sides, sides, sides))
def test_dense_maps(n: int, grids: tuple[int, int, int, int]) -> None:
    """On each axis the coarser grid wins, whichever side has it."""
    hs, ws, ht, wt = grids
    student, teacher = _random(n, 2, hs, ws), _random(n, 3, ht, wt, seed=1)
    ours, theirs = pair_as_samples(student, teacher, "dense")
    size = min(hs, ht), min(ws, wt)
    torch.testing.assert_close(ours, _as_rows(_pooled_to(student, *size)))
    torch.testing.assert_close(theirs, _as_rows(_pooled_to(teacher, *size)))


def test_equal_grids_are_not_touched() -> None:
    feature = _random(2, 3, 4, 5)
    ours, theirs = pair_as_samples(feature, feature, "dense")
    assert torch.equal(ours, _as_rows(feature))
    assert torch.equal(theirs, _as_rows(feature))


@given(n=st.integers(1, 3), length=st.integers(1, 7))
def test_dense_tokens_of_one_length_need_no_grid(n: int, length: int) -> None:
    student, teacher = _random(n, length, 2), _random(n, length, 3, seed=1)
    ours, theirs = pair_as_samples(student, teacher, "dense")
    assert torch.equal(ours, student.flatten(0, 1))
    assert torch.equal(theirs, teacher.flatten(0, 1))


@pytest.mark.parametrize("grid", [(2, 8), (2, 2), (1, 4), (6, 6), (3, 5)])
def test_dense_tokens_beside_a_map(grid: tuple[int, int]) -> None:
    """Tokens are the rows of their grid: 2 x 8, not 4 x 4."""
    tokens, feature = _random(2, 16, 3), _random(2, 5, *grid, seed=1)
    as_map = torch.stack([tokens[:, 8 * i + j] for i in range(2) for j in range(8)], dim=-1)
    as_map = as_map.view(2, 3, 2, 8)
    expected = pair_as_samples(as_map, feature, "dense")
    found = pair_as_samples(tokens, feature, "dense", (16, 64))
    assert all(map(torch.equal, found, expected))
    swapped = pair_as_samples(feature, tokens, "dense", (16, 64))
    assert torch.equal(swapped[1], expected[0])
    assert torch.equal(swapped[0], expected[1])


def test_tokens_as_many_as_the_locations_of_a_map_lie_on_its_grid() -> None:
    feature = _random(2, 3, 2, 8)
    tokens = _random(2, 5, 2, 8, seed=1)
    ours, theirs = pair_as_samples(feature, tokens.flatten(2).transpose(1, 2), "dense")
    assert torch.equal(ours, _as_rows(feature))
    assert torch.equal(theirs, _as_rows(tokens))


def test_dense_tokens_of_two_lengths() -> None:
    student, teacher = _random(2, 4, 3), _random(2, 16, 3, seed=1)
    ours, theirs = pair_as_samples(student, teacher, "dense", (32, 32))
    assert torch.equal(ours, student.flatten(0, 1))
    block = teacher.view(2, 2, 2, 2, 2, 3).mean(dim=(2, 4))
    torch.testing.assert_close(theirs, block.reshape(8, 3))


def test_dense_vectors() -> None:
    student, teacher = _random(4, 2), _random(4, 3, seed=1)
    assert torch.equal(pair_as_samples(student, teacher, "dense")[0], student)


@pytest.mark.parametrize("shape", [(2, 3), (2, 9, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("other", [(2, 7), (2, 5, 7), (2, 7, 2, 3)])
def test_global_pairs_any_two(shape: tuple[int, ...], other: tuple[int, ...]) -> None:
    def mean(feature: Tensor) -> Tensor:
        if feature.ndim == 4:
            return torch.stack([sum(_as_rows(each[None])) / each[0].numel() for each in feature])
        return feature if feature.ndim == 2 else sum(feature.unbind(1)) / feature.shape[1]

    student, teacher = _random(*shape), _random(*other, seed=1)
    ours, theirs = pair_as_samples(student, teacher, "global")
    torch.testing.assert_close(ours, mean(student))
    torch.testing.assert_close(theirs, mean(teacher))


def test_flat_rows_hold_all_entries_of_an_image() -> None:
    feature, tokens = _random(2, 3, 4, 5), _random(2, 7, 2, seed=1)
    ours, theirs = pair_as_samples(feature, tokens, "flat")
    assert torch.equal(ours[1], feature[1].flatten()) and ours.shape == (2, 60)
    assert torch.equal(theirs[0], tokens[0].flatten()) and theirs.shape == (2, 14)


def test_views_pass_gradients() -> None:
    student = _random(2, 2, 3, 4).requires_grad_()
    teacher = _random(2, 2, 2, 4)
    assert torch.autograd.gradcheck(lambda s: pair_as_samples(s, teacher, "dense")[0], student)


@pytest.mark.parametrize(
    ("student", "teacher", "view", "message"),
    [
        ((2, 3), (2, 3), "pooled", r"view must be 'dense', 'global' or 'flat', got 'pooled'"),
        ((2, 3), (3, 3), "global", "the student's feature holds 2 images, the teacher's 3"),
        ((2, 3), (2, 3, 4, 4), "dense", r"cannot pair \(2, 3\) with .* use view='global'"),
        ((2, 16, 3), (2, 3), "dense", r"cannot pair \(2, 16, 3\) with \(2, 3\)"),
        ((2, 36, 3), (2, 3, 4, 4), "dense", r"grid of 36 tokens .* size=\(height, width\)"),
        ((2, 16, 3), (2, 36, 3), "dense", "the grid of 16 tokens depends on the images"),
        ((2, 3, 4, 4, 4), (2, 3, 4, 4, 4), "dense", r"a feature is .* \(2, 3, 4, 4, 4\)"),
        ((3,), (3,), "global", r"a feature is .* got shape \(3,\)"),
    ],
)
def test_views_refuse(
    student: tuple[int, ...], teacher: tuple[int, ...], view: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pair_as_samples(torch.zeros(student), torch.zeros(teacher), view)


# Hooks that stay with their module


def test_copies_of_a_module_are_not_tapped() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh())
    taps = FeatureTaps(model, ["0"])
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    taps.arm()
    images = torch.rand(1, 3, 2, 2)
    for each in copies:
        each(images)
    expected = model(images)
    taps.rest()
    model(images)
    assert torch.equal(taps.take()["0"].tanh(), expected)


def test_a_module_of_two_names_is_found_by_either() -> None:
    model = nn.Sequential()
    model.first = model.second = nn.Linear(2, 2)
    assert find_module(model, "first") is find_module(model, "second") is model.first


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_levels_that_are_overwritten_cannot_be_taken(kind: type) -> None:
    """By what follows their module; the others can."""

    class Levels(nn.Module):
        def forward(self, x: Tensor) -> Any:
            levels = (x - 1, x + 1)
            return dict(enumerate(levels)) if kind is dict else kind(levels)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.levels = Levels()

        def forward(self, x: Tensor) -> Tensor:
            return self.levels(x)[0].relu_()

    network = Network()
    taps = FeatureTaps(network, ["levels"])
    with taps.recording():
        network(torch.zeros(1, 2, 3, 3))
    output = taps.take()["levels"]
    assert torch.equal(select(output, 1), torch.ones(1, 2, 3, 3))
    with pytest.raises(RuntimeError, match="'levels' returned was overwritten in place"):
        select(output, 0)
