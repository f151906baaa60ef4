"""One training step of each baseline of the papers' tables, by MMEngine's Runner and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, normalize, smooth_l1_loss, softplus

from helpers.classifier_steps import (
    BATCH,
    Weights,
    affine,
    check,
    connected,
    cross_entropy,
    first_map,
    kl,
    mse,
    one_step,
    others,
    pooled,
    student_map,
    teacher_map,
)
from helpers.classifier_toy import AS_THEY_ARE, KD_TERM, classifier, write_classifier


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return write_classifier(tmp_path_factory.mktemp("teacher"))


class Baseline(NamedTuple):
    """A term, and its distance by hand of what it compares, labels and the term's own weights."""

    settings: dict[str, Any]
    distance: Callable[[Tensor, Tensor, Tensor, Weights], Tensor]


# On logits --------------------------------------------------------------------------------


def correlations(x: Tensor, y: Tensor) -> Tensor:
    rows = []
    for pair in zip(x, y, strict=True):
        a, b = (each - each.mean() for each in pair)
        rows.append(a @ b / (a.norm() * b.norm() + 1e-8))
    return torch.stack(rows).mean()


def dist(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    p, q = (x.softmax(dim=1) for x in (s, t))
    return 2 * (2 - correlations(p, q) - correlations(p.T, q.T))


def spherical(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    s, t = (x - x.mean(dim=1, keepdim=True) for x in (s, t))
    norm = t.norm(dim=1).mean()
    return kl(norm * normalize(s), norm * normalize(t), 4.0)


def standardised_kd(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    s, t = (
        (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True, unbiased=False)
        for x in (s, t)
    )
    return kl(s, t, 2.0)


def nkd(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    rows = torch.arange(len(y))
    own = -(t.softmax(dim=1)[rows, y] * s.log_softmax(dim=1)[rows, y]).mean()
    rest = others(t, y).softmax(dim=1) * others(s, y).log_softmax(dim=1)
    return own - 1.5 * rest.sum(dim=1).mean()


def dkd(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    rows = torch.arange(len(y))
    pairs = []
    for x in (s, t):
        own = (x / 4).softmax(dim=1)[rows, y]
        pairs.append(torch.stack([own, 1 - own], dim=1).log())
    # Their softmax is what they are the logarithm of.
    return 16 * kl(*pairs, 1.0) + 8 * kl(others(s, y), others(t, y), 4.0)


# On images against each other -------------------------------------------------------------


def sp(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    ours, theirs = (normalize(x.flatten(1) @ x.flatten(1).T) for x in (s, t))
    return (ours - theirs).square().sum() / BATCH**2


def cc(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    def kernel(x: Tensor) -> Tensor:
        cosines = normalize(pooled(x)) @ normalize(pooled(x)).T
        return math.exp(-0.8) * (1 + 0.8 * cosines + 0.32 * cosines**2)

    return (kernel(s) - kernel(t)).square().mean()


def rkd(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    def relations(x: Tensor) -> tuple[Tensor, Tensor]:
        x = pooled(x)
        apart = torch.stack([(a - b).norm() for i, a in enumerate(x) for b in x[:i]])
        distances = apart / apart.mean()
        angles = [normalize(a - b, dim=0) @ normalize(c - b, dim=0) for a, b, c in product(x, x, x)]
        return distances, torch.stack(angles)

    (d, a), (e, b) = relations(s), relations(t)
    # Each pair stands there twice, and those of an image with itself are 0 on both sides.
    by_distance = 2 * smooth_l1_loss(d, e, reduction="sum") / BATCH**2
    return 25 * by_distance + 50 * smooth_l1_loss(a, b)


def pkt(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    def neighbours(x: Tensor) -> Tensor:
        similar = (1 + normalize(pooled(x)) @ normalize(pooled(x)).T) / 2
        return similar / similar.sum(dim=1, keepdim=True)

    p, q = neighbours(s), neighbours(t)
    return (q * ((q + 1e-7) / (p + 1e-7)).log()).mean()


# On locations --------------------------------------------------------------------------------


def at(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    ours, theirs = (normalize(x.square().mean(dim=1).flatten(1)) for x in (s, t))
    return (ours - theirs).square().mean()


def fitnet(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    return mse(connected(w, "projector", s), t)


def review(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    """A level and its pooled feature."""

    def layer(name: str, x: Tensor) -> Tensor:
        kernel = w[f"loss.fusions.{name}.0.weight"]
        x = conv2d(x, kernel, padding=kernel.shape[-1] // 2)
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), keepdim=True, correction=0)
        factor, shift = (
            w[f"loss.fusions.{name}.1.{k}"].view(1, -1, 1, 1) for k in ("weight", "bias")
        )
        return factor * (x - mean) / (variance + 1e-5).sqrt() + shift

    def at_sides(a: Tensor, b: Tensor) -> Tensor:
        # On a grid of 4 x 4: as it is, of 2 x 2 and of one cell.
        found = [mse(avg_pool2d(a, size), avg_pool2d(b, size)) for size in (1, 2, 4)]
        return (found[0] + found[1] / 2 + found[2] / 4) / 1.75

    x, coarse = layer("0.narrow", s), layer("1.narrow", pooled(s)[:, :, None, None])
    up = coarse.expand_as(x)
    name = "loss.fusions.0.attention"
    z = conv2d(torch.cat([x, up], dim=1), w[f"{name}.weight"], w[f"{name}.bias"]).sigmoid()
    fine = layer("0.widen", z[:, :1] * x + z[:, 1:] * up)
    of_pooled = mse(layer("1.widen", coarse), pooled(t)[:, :, None, None])
    return at_sides(fine, t) + of_pooled


# On channels ------------------------------------------------------------------------------


def nst(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    s, t = (normalize(x.flatten(2), dim=2) for x in (s, t))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum("ncp,ndp->ncd", a, b).square().mean()

    return kernel(s, s) + kernel(t, t) - 2 * kernel(s, t)


def ickd(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    projected = conv2d(s, w["projector.layers.0.weight"])
    variance, mean = torch.var_mean(projected, dim=(0, 2, 3), keepdim=True, correction=0)
    factor, shift = (w[f"projector.layers.1.{k}"].view(1, -1, 1, 1) for k in ("weight", "bias"))
    ours = factor * (projected - mean) / (variance + 1e-5).sqrt() + shift
    rows = []
    for x in (ours, t):
        channels = x.flatten(2)
        rows.append(normalize(channels @ channels.transpose(1, 2), dim=2))
    return (rows[0] - rows[1]).square().sum() / BATCH / t.shape[1]


def vid(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    for index in (0, 2, 4):
        s = conv2d(s, w[f"loss.mean.{index}.weight"])
        s = s.clamp(min=0) if index < 4 else s
    variance = (softplus(w["loss.spread"]) + 1e-5)[:, None, None]
    return ((s - t).square() / variance + variance.log()).mean() / 2


def logits(loss: str, **settings: Any) -> dict[str, Any]:
    part = dict(type=f"mmkd.{loss}", **settings.pop("of_loss", {}))
    return {**KD_TERM, "loss": part, **settings}


def maps(loss: str, **settings: Any) -> dict[str, Any]:
    part = dict(type=f"mmkd.{loss}", **settings.pop("of_loss", {}))
    return dict(loss=part, **settings)


ICKD_PROJECTOR = dict(type="mmkd.ConvConnector", layout="1x1", activate_output=False)
FITNET = dict(
    view="dense",
    projector=dict(type="mmkd.ConvConnector", layout="1x1"),
    normalizer=dict(type="mmkd.IdentityNormalizer"),
)
# Those with trained parts of their own.
TRAINED = ("ickd", "vid", "fitnet", "reviewkd")
# At 4, float32 leaves four digits of the gradient.
DIST_OF_IMAGENET = dict(beta=2.0, gamma=2.0, temperature=1.0)
LAYER_NORM = dict(type="mmkd.LayerNormalizer", eps=1e-12)
ON_LOGITS = {
    "dist": Baseline(logits("DISTLoss", of_loss=DIST_OF_IMAGENET), dist),
    "spherical": Baseline(logits("SphericalKDLoss"), spherical),
    "nkd": Baseline(logits("NKDLoss"), nkd),
    "dkd": Baseline(logits("DKDLoss"), dkd),
    "standardised": Baseline(
        logits("KDLoss", of_loss=dict(temperature=2.0), normalizer=LAYER_NORM), standardised_kd
    ),
}
ON_MAPS = {
    "sp": Baseline(maps("SPLoss"), sp),
    "cc": Baseline(maps("CCLoss"), cc),
    "rkd": Baseline(maps("RKDLoss"), rkd),
    "pkt": Baseline(maps("PKTLoss"), pkt),
    "at": Baseline(maps("ATLoss"), at),
    "fitnet": Baseline(maps("MSELoss", **FITNET), fitnet),
    "reviewkd": Baseline(
        maps("ReviewKDLoss", levels=[-1], of_loss=dict(inner=5, pooled=True)), review
    ),
    "nst": Baseline(maps("NSTLoss"), nst),
    "ickd": Baseline(maps("ICKDLoss", projector=ICKD_PROJECTOR), ickd),
    "vid": Baseline(maps("VIDLoss"), vid),
}


def test_fsp_between_two_levels(tmp_path: Path) -> None:
    """Before the last ReLU and after it, or a teacher's BatchNorm."""
    teacher = write_classifier(tmp_path, width=4)
    levels = ["backbone.conv", "backbone"]
    flow = dict(
        student=levels, teacher=levels, loss=dict(type="mmkd.FSPLoss"), weight=5.0, **AS_THEY_ARE
    )
    step = one_step(tmp_path, teacher, classifier(), dict(one=flow))

    def solution(w: Weights, x: Tensor, last: Tensor) -> Tensor:
        return torch.einsum("nchw,ndhw->ncd", first_map(w, x), last) / 16

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        ours, theirs = student_map(w, x), teacher_map(t, x)
        distance = mse(solution(w, x, ours), solution(t, x, theirs))
        return cross_entropy(affine(w, "head.fc", pooled(ours)), y) + 5 * distance

    check(step, objective, {"backbone.", "head.fc."})


@pytest.mark.parametrize("name", [*ON_LOGITS, *ON_MAPS])
def test_one_step(tmp_path: Path, teacher: dict, name: str) -> None:
    baseline = {**ON_LOGITS, **ON_MAPS}[name]
    terms = dict(one={**baseline.settings, "weight": 2.0})
    step = one_step(tmp_path, teacher, classifier(), terms)

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        own = {k.removeprefix("distill.one."): v for k, v in w.items() if k.startswith("distill.")}
        ours, theirs = student_map(w, x), teacher_map(t, x)
        predicted = affine(w, "head.fc", pooled(ours))
        if name in ON_LOGITS:
            compared = (predicted, affine(t, "head.fc", pooled(theirs)))
        else:
            compared = (ours, theirs)
        return cross_entropy(predicted, y) + 2 * baseline.distance(*compared, y, own)

    trained = {"backbone.", "head.fc."} | ({"distill."} if name in TRAINED else set())
    check(step, objective, trained)
