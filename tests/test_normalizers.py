from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mmkd.distiller import FeatureDistiller
from mmkd.normalizers import (
    BatchNormalizer,
    GroupNormalizer,
    IdentityNormalizer,
    L2Normalizer,
    LayerNormalizer,
    Normalizer,
)
from mmkd.registry import build_part

NORMALIZERS = [
    BatchNormalizer(6),
    GroupNormalizer(6, num_groups=2),
    LayerNormalizer(),
    L2Normalizer(),
    IdentityNormalizer(),
]
every_normalizer = pytest.mark.parametrize(
    "normalizer", NORMALIZERS, ids=lambda normalizer: type(normalizer).__name__
)


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _standardized(values: Tensor, eps: float) -> Tensor:
    """A vector to mean 0 and variance 1, by loops."""
    numbers = values.tolist()
    mean = sum(numbers) / len(numbers)
    variance = sum((x - mean) ** 2 for x in numbers) / len(numbers)
    return values.new_tensor([(x - mean) / (variance + eps) ** 0.5 for x in numbers])


# Values


@given(m=st.integers(2, 7), c=st.integers(1, 5), eps=st.sampled_from([1e-4, 1e-2]))
def test_batch(m: int, c: int, eps: float) -> None:
    x = _random(m, c)
    expected = torch.stack([_standardized(column, eps) for column in x.unbind(1)], dim=1)
    torch.testing.assert_close(BatchNormalizer(c, eps)(x), expected)


def test_batch_by_hand() -> None:
    # Mean 2 and variance 1, so the divisor is sqrt(1 + 3).
    normalized = BatchNormalizer(1, eps=3.0)(torch.tensor([[1.0], [3.0], [1.0], [3.0]]))
    assert normalized.flatten().tolist() == pytest.approx([-0.5, 0.5, -0.5, 0.5])


def test_batch_is_batchnorm_in_training_without_affine() -> None:
    x = _random(9, 4).requires_grad_()
    reference = nn.BatchNorm1d(4, eps=1e-4, affine=False).double().train()
    ours, theirs = BatchNormalizer(4)(x), reference(x)
    assert torch.equal(ours, theirs)
    weights = _random(9, 4, seed=1)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, theirs)]
    assert torch.equal(*gradients)
    normalizer = BatchNormalizer(4).eval()
    assert torch.equal(normalizer(x), ours), "the batch's own statistics in eval mode too"


@given(m=st.integers(1, 5), groups=st.integers(1, 3), size=st.integers(2, 4))
def test_group(m: int, groups: int, size: int) -> None:
    x = _random(m, groups * size)
    rows = [[_standardized(g, 1e-4) for g in row.split(size)] for row in x]
    expected = torch.stack([torch.cat(row) for row in rows])
    torch.testing.assert_close(GroupNormalizer(groups * size, groups)(x), expected)


@given(m=st.integers(1, 5), c=st.integers(2, 6))
def test_layer(m: int, c: int) -> None:
    x = _random(m, c)
    expected = torch.stack([_standardized(row, 1e-4) for row in x])
    torch.testing.assert_close(LayerNormalizer()(x), expected)


@given(m=st.integers(1, 5), c=st.integers(1, 6))
def test_l2(m: int, c: int) -> None:
    x = _random(m, c)
    expected = torch.stack([row / sum(v**2 for v in row.tolist()) ** 0.5 for row in x])
    torch.testing.assert_close(L2Normalizer()(x), expected)


def test_l2_of_zero_and_of_extremes() -> None:
    largest = torch.finfo(torch.float32).max
    rows = [[0.0, 0.0], [3.0, 4.0], [largest, -largest], [3e-38, 4e-38]]
    x = torch.tensor(rows, requires_grad=True)
    normalized = L2Normalizer()(x)
    expected = torch.tensor([[0, 0], [0.6, 0.8], [0.5**0.5, -(0.5**0.5)], [0.6, 0.8]])
    torch.testing.assert_close(normalized, expected)
    normalized[:3].sum().backward()
    assert torch.isfinite(x.grad).all()


def test_identity() -> None:
    x = _random(3, 4)
    assert IdentityNormalizer()(x) is x


# What holds for all


@every_normalizer
def test_gradient_is_the_derivative(normalizer: nn.Module) -> None:
    assert torch.autograd.gradcheck(normalizer, _random(4, 6).requires_grad_())


@every_normalizer
def test_samples_keep_their_order(normalizer: nn.Module) -> None:
    x = _random(5, 6)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(normalizer(x[order]), normalizer(x)[order])


@every_normalizer
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(normalizer: nn.Module, dtype: torch.dtype) -> None:
    x = _random(4, 6).to(dtype)
    assert normalizer(x).dtype == torch.float32
    assert torch.equal(normalizer(x), normalizer(x.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(normalizer(x), normalizer(x.float()))


@every_normalizer
@pytest.mark.parametrize("shape", [(6,), (2, 3, 6), (2, 6, 4, 4)])
def test_other_ranks_are_refused(normalizer: Normalizer, shape: tuple[int, ...]) -> None:
    if normalizer.takes_maps:
        assert normalizer(torch.zeros(shape)).shape == shape
        return
    with pytest.raises(ValueError, match=r"a normalizer takes samples \[M, [C6]\], got"):
        normalizer(torch.zeros(shape))


@every_normalizer
def test_normalizers_hold_nothing(normalizer: nn.Module) -> None:
    assert not normalizer.state_dict()
    assert not list(normalizer.parameters())


@every_normalizer
def test_normalizers_are_built_from_their_config(normalizer: nn.Module) -> None:
    config = dict(type=f"mmkd.{type(normalizer).__name__}")
    assert type(build_part(config, num_channels=64)) is type(normalizer)


# Errors


def test_one_sample_has_no_batch_statistics() -> None:
    with pytest.raises(ValueError, match=r"2 samples or more, got 1: use view='dense'.*L2Normaliz"):
        BatchNormalizer(3)(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="2 samples or more, got 0"):
        BatchNormalizer(3)(torch.zeros(0, 3))


def test_other_channels_are_refused() -> None:
    for normalizer in (BatchNormalizer(6), GroupNormalizer(6, 2)):
        with pytest.raises(ValueError, match=r"samples \[M, 6\], got \(4, 5\)"):
            normalizer(torch.zeros(4, 5))


@pytest.mark.parametrize("num_groups", [0, -1, 4])
def test_groups_must_divide_the_channels(num_groups: int) -> None:
    with pytest.raises(ValueError, match=f"num_groups {num_groups} does not divide 6 channels"):
        GroupNormalizer(6, num_groups)


def test_sync_needs_a_distributed_run() -> None:
    with pytest.raises(RuntimeError, match="sync=True needs an initialised process group"):
        BatchNormalizer(3, sync=True)(torch.zeros(2, 3))
    x = _random(4, 3)
    assert torch.equal(BatchNormalizer(3, sync=False)(x), BatchNormalizer(3)(x))


# Two processes


DISTILLERS = {
    "logsum": dict(loss=dict(type="mmkd.LogSumLoss", sync=True)),
    "logsum by default": dict(),
    "logsum of huge values": dict(
        normalizer=dict(type="mmkd.IdentityNormalizer"), loss=dict(type="mmkd.LogSumLoss", alpha=3)
    ),
    "correlation": dict(loss=dict(type="mmkd.CorrelationLogSumLoss", alpha=3)),
    "maps": dict(loss=dict(type="mmkd.PKDLoss")),
}
UNSYNCHRONIZED = dict(
    normalizer=dict(type="mmkd.BatchNormalizer", sync=False),
    loss=dict(type="mmkd.LogSumLoss", sync=False),
)
SPLITS = [(4, 4), (6, 2), (1, 7)]


def _distiller(parts: dict) -> FeatureDistiller:
    return FeatureDistiller(3, 5, **parts).double()


def _features(name: str) -> tuple[Tensor, Tensor]:
    scale = 1e200 if "huge" in name else 1.0
    grid = (2, 3) if name == "maps" else ()
    return scale * _random(8, 3, *grid), scale * _random(8, 5, *grid, seed=1)


def _value_and_gradient(distiller: nn.Module, student: Tensor, teacher: Tensor) -> list[Tensor]:
    value = distiller(student, teacher)
    value.backward()
    return [value.detach(), *(p.grad for p in distiller.parameters())]


def _rank(rank: int, folder: Path) -> dict:
    """One process of two: its share of every batch, the projector wrapped as trainers wrap it."""
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=2),
    )
    found = {}
    for split in SPLITS:
        share = slice(0, split[0]) if rank == 0 else slice(split[0], None)
        for name, parts in DISTILLERS.items():
            student, teacher = (feature[share] for feature in _features(name))
            wrapped = DistributedDataParallel(_distiller(parts))
            found[name, split] = _value_and_gradient(wrapped, student, teacher)
    student, teacher = (feature[4 * rank :][:4] for feature in _features(""))
    found["alone"] = _value_and_gradient(_distiller(UNSYNCHRONIZED), student, teacher)
    return found


def _main(rank: int, folder: Path) -> None:
    torch.save(_rank(rank, folder), folder / f"rank{rank}.part")
    (folder / f"rank{rank}.part").rename(folder / f"rank{rank}.pt")
    while not (folder / f"rank{1 - rank}.pt").exists():
        time.sleep(0.05)
    # Torch can wait for itself for ever where a process group ends: the destructor holds the
    # interpreter's lock, which gloo's thread needs to let go of its last tensor.
    os._exit(0)


def test_two_processes_are_one_process_on_the_joined_batch(tmp_path: Path) -> None:
    """The processes run this file."""
    processes = [
        subprocess.Popen([sys.executable, __file__, str(r), str(tmp_path)]) for r in (0, 1)
    ]
    try:
        for rank, process in enumerate(processes):
            assert process.wait(timeout=240) == 0, f"process {rank} failed"
    finally:
        for process in processes:
            process.kill()
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    for name, parts in DISTILLERS.items():
        expected = _value_and_gradient(_distiller(parts | _without_sync(parts)), *_features(name))
        for split in SPLITS:
            for found in ranks:
                torch.testing.assert_close(
                    found[name, split], expected, rtol=1e-10, atol=1e-10, msg=f"{name} {split}"
                )
    for rank, found in enumerate(ranks):
        student, teacher = (feature[4 * rank :][:4] for feature in _features(""))
        expected = _value_and_gradient(_distiller({}), student, teacher)
        torch.testing.assert_close(found["alone"], expected, rtol=1e-10, atol=1e-10)


def _without_sync(parts: dict) -> dict:
    loss = {key: value for key, value in parts.get("loss", {}).items() if key != "sync"}
    return dict(loss=loss) if loss else {}


if __name__ == "__main__":
    _main(int(sys.argv[1]), Path(sys.argv[2]))
