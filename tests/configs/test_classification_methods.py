"""The baselines' configs: on CIFAR-100 a step in small, on ImageNet the same methods."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner
from torch import Tensor

from helpers.small_scale import read
from helpers.small_scale_classification import (
    CONFIGS,
    IMAGES,
    build_without_numbers,
    hook_of,
    one_step,
    teacher_config,
)
from helpers.toy import LossRecorder, Probe, distill_hook_of
from mmkd.registry import build_part
from mmkd.terms import parse_terms

FOUND = sorted((CONFIGS / "methods").glob("*.py"))
NAMES = {
    "afd", "at", "cc", "cid", "crd", "dist", "dkd", "ema", "fitnet",
    "fitnet-hint", "fitnet-kd", "fsp", "fsp-first", "ft", "ickd", "nkd",
    "nst", "pkt", "reviewkd", "rkd", "sp", "spherical", "sskd", "standardised", "uskd",
    "vid",
}  # fmt: skip
CIFAR = [path for path in FOUND if path.stem.startswith("resnet8x4")]
# What differs between the two data sets by what was published.
OWN_SETTINGS = {
    "cid": {"initial", "every"},
    "crd": {"num_images"},
    "dist": {"temperature"},
    "dkd": {"beta", "temperature", "schedule"},
    "fitnet-kd": {"decay", "end"},
    "ft": {"paraphrase"},
    "nkd": {"gamma", "temperature"},
    "reviewkd": {"weight", "schedule", "inner"},
    "sskd": {"pretext"},
    "uskd": {"target", "weak"},
}

# What a first stage leaves as it was drawn.
BEHIND_THE_FIRST_STAGE = {
    "fitnet-hint": ("backbone.stages.2.", "head."),
    "fsp-first": ("head.",),
}
OTHER_BLOCKS = tuple(f".{stage}.{block}" for stage in range(3) for block in range(1, 5))


def method(path: Path) -> str:
    return path.stem.split("_")[1].partition("-")[2]


def terms_of(path: Path) -> dict[str, Any]:
    return hook_of(read(path), "DistillHook").terms.to_dict()


def parameters(runner: Runner) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in runner.model.named_parameters()}


def test_there_is_a_pair_of_each_method() -> None:
    assert {method(path) for path in CIFAR} == NAMES
    assert {path.name for path in FOUND} == {path.name for path in CIFAR} | {
        path.name.replace("resnet8x4_", "resnet18_")
        .replace("resnet32x4", "resnet34")
        .replace("1xb64_cifar100", "8xb32_in1k")
        for path in CIFAR
    }


@pytest.mark.parametrize("path", CIFAR, ids=method)
def test_takes_a_training_step(path: Path, tmp_path: Path) -> None:
    config = read(path)
    one_step(config, tmp_path, name=f"method-{method(path)}")
    config.randomness, config.load_from = dict(seed=1), None
    for term in hook_of(config, "DistillHook").terms.values():
        if "num_images" in term:
            term.update(num_images=IMAGES, negatives=3)
        term.pop("schedule", None)
        if isinstance(term.get("teacher"), list):
            # Small networks have one block a stage.
            term.teacher = [path for path in term.teacher if not path.endswith(OTHER_BLOCKS)]
    config.train_cfg.max_epochs = 1
    runner = Runner.from_cfg(config)
    recorder = LossRecorder()
    runner.register_hook(recorder)
    before: dict[str, Tensor] = {}
    runner.register_hook(Probe(before_train=lambda r: before.update(parameters(r))))
    runner.train()
    if behind := BEHIND_THE_FIRST_STAGE.get(method(path)):
        still = {k for k, value in parameters(runner).items() if torch.equal(value, before[k])}
        assert still == {k for k in before if k.startswith(behind)}
    (losses,) = recorder.logged
    assert all(math.isfinite(value) for value in losses.values()), losses
    for term in distill_hook_of(runner).terms:
        assert losses[f"distill_{term.name}"] > 0


@pytest.mark.parametrize("path", [p for p in FOUND if method(p) == "fitnet-kd"], ids=str)
def test_fitnet_s_second_stage_begins_at_the_paper_s_weight(path: Path) -> None:
    """4 of the cross-entropy with the teacher at T 3, Eq. (4), which has no T^2."""
    student, teacher = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    student.requires_grad_()
    found = sum(
        term["weight"] * build_part(term["loss"])(student, teacher)
        for term in terms_of(path).values()
    )
    softened = (teacher / 3).softmax(1)
    expected = -4 * (softened * (student / 3).log_softmax(1)).sum(1).mean()
    gradients = [torch.autograd.grad(each, student)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("path", [p for p in FOUND if method(p) == "fitnet-hint"], ids=str)
def test_fitnet_s_first_stage_is_half_the_squared_distance(path: Path) -> None:
    """Eq. (3), of an image's cell."""
    [hint] = terms_of(path).values()
    student, teacher = torch.randn(2, 3 * 4 * 4, 6, generator=torch.Generator().manual_seed(0))
    found = hint["weight"] * build_part(hint["loss"])(student, teacher)
    assert found.item() == pytest.approx((student - teacher).norm(dim=1).square().mean().item() / 2)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_is_compared_is_there(path: Path) -> None:
    config = read(path)
    terms = parse_terms(terms_of(path), ["teacher"])
    student = build_without_numbers(config.model)
    teacher = (
        student if "_self-" in path.stem else build_without_numbers(teacher_config(config).model)
    )
    for term in terms:
        for network, taps in zip((student, teacher), (term.student, term.teacher), strict=True):
            for tap in taps:
                assert network.get_submodule(tap.path) is not None


@pytest.mark.parametrize(("student", "blocks"), [("resnet8x4", (3, 15)), ("resnet18", (8, 16))])
def test_afd_has_every_block(student: str, blocks: tuple[int, int]) -> None:
    [path] = (p for p in FOUND if method(p) == "afd" and p.stem.startswith(student))
    [term] = parse_terms(dict(afd=terms_of(path)["afd"]), ["teacher"])
    assert (len({*term.student}), len({*term.teacher})) == blocks


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_pairs_differ_in_what_was_published(name: str) -> None:
    cifar, imagenet = (
        terms_of(path)
        for student in ("resnet8x4", "resnet18")
        for path in FOUND
        if method(path) == name and path.stem.startswith(student)
    )
    assert set(cifar) == set(imagenet)
    found: set[str] = set()
    for key, term in cifar.items():
        found |= differing(term, imagenet[key])
    # Stages have other names, and ResNet-18 one more.
    assert found - {"student", "teacher"} == OWN_SETTINGS.get(name, set())


def differing(one: Any, other: Any, key: str = "") -> set[str]:
    """Keys at which two settings differ, at any depth."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return set().union(*(differing(one.get(k), other.get(k), k) for k in keys))
    return set() if one == other else {key}
