"""One training step of each baseline of the papers' tables, by MMEngine's Runner and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, normalize, smooth_l1_loss, softplus

from helpers.classifier_steps import (
    BATCH,
    Weights,
    affine,
    batch,
    check,
    connected,
    cross_entropy,
    kl,
    mse,
    one_step,
    pooled,
    student_map,
    teacher_map,
)
from helpers.classifier_toy import (
    KD_TERM,
    classifier,
    classifier_config,
    linear_head,
    write_classifier,
)
from helpers.toy import distill_hook_of


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return write_classifier(tmp_path_factory.mktemp("teacher"))


class Baseline(NamedTuple):
    """A term, and its distance by hand of what it compares, labels and the term's own weights."""

    settings: dict[str, Any]
    distance: Callable[[Tensor, Tensor, Tensor, Weights], Tensor]


# On logits --------------------------------------------------------------------------------


def correlations(x: Tensor, y: Tensor) -> Tensor:
    rows = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(x, y, strict=True)]
    return torch.stack(rows).mean()


def dist(s: Tensor, t: Tensor, y: Tensor, w: Weights) -> Tensor:
    p, q = ((x / 4).softmax(dim=1) for x in (s, t))
    return 16 * (2 * (1 - correlations(p, q)) + 2 * (1 - correlations(p.T, q.T)))


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


def others(x: Tensor, y: Tensor) -> Tensor:
    rows = [torch.cat([row[:k], row[k + 1 :]]) for row, k in zip(x, y.tolist(), strict=True)]
    return torch.stack(rows)


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
DIST_OF_CIFAR = dict(beta=2.0, gamma=2.0, temperature=4.0)
LAYER_NORM = dict(type="mmkd.LayerNormalizer", eps=1e-12)
ON_LOGITS = {
    "dist": Baseline(logits("DISTLoss", of_loss=DIST_OF_CIFAR), dist),
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


@pytest.mark.parametrize("is_dropped", [False, True])
def test_dgkd_by_two_teachers(tmp_path: Path, teacher: dict, is_dropped: bool) -> None:
    """The sum of what either teaches, or one alone."""
    teachers = dict(first=teacher, assistant=write_classifier(tmp_path, "assistant", 8, width=5))
    seed = classifier_config(tmp_path).randomness.seed
    draws = {source: Random(f"{seed} {source} 0").random() for source in teachers}
    drop = sum(draws.values()) / 2 if is_dropped else 0.0
    kd = dict(KD_TERM, loss=dict(type="mmkd.KDLoss", temperature=4.0), schedule=dict(drop=drop))
    terms = {source: dict(kd, source=source, weight=0.9) for source in teachers}
    step = one_step(tmp_path, teachers, classifier(), terms)
    kept = [source for source in teachers if draws[source] >= drop]
    assert len(kept) == (1 if is_dropped else 2)

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        logits = affine(w, "head.fc", pooled(student_map(w, x)))
        found = cross_entropy(logits, y)
        for source in kept:
            own = {k.removeprefix(f"{source}."): v for k, v in t.items()}
            theirs = affine(own, "head.fc", pooled(teacher_map(own, x)))
            found = found + 0.9 * kl(logits, theirs, 4.0)
        return found

    check(step, objective, {"backbone.", "head.fc."})


def test_uskd_without_a_teacher(tmp_path: Path) -> None:
    taps = ["backbone", "head.fc"]
    uskd = dict(
        type="mmkd.USKDDistiller", student=taps, teacher=taps, target=0.5, weak=0.2, weight=2.0
    )
    step = one_step(tmp_path, dict(student=True), classifier(), dict(one=uskd))

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        rows = torch.arange(len(y))
        middle = pooled(student_map(w, x))
        logits, weak = affine(w, "head.fc", middle), affine(w, "distill.one.classifier", middle)
        squares = logits.softmax(dim=1)[rows, y].square().detach()
        own = -(squares + 1 - squares.mean()) * logits.log_softmax(dim=1)[rows, y]
        rest = others(logits, y).log_softmax(dim=1)
        likely = (rest.exp() + others(weak, y).softmax(dim=1)).detach()
        # Of two others, the likelier is twice the other's share.
        soft = torch.where(likely == likely.amax(dim=1, keepdim=True), 2 / 3, 1 / 3)
        smooth = torch.full_like(weak, 0.1 / 3)
        smooth[rows, y] += 0.9
        at_the_middle = -(smooth * weak.log_softmax(dim=1)).sum(dim=1).mean()
        distance = 0.5 * own.mean() - 0.1 * (soft * rest).sum(dim=1).mean() + 0.2 * at_the_middle
        return cross_entropy(logits, y) + 2 * distance

    check(step, objective, {"backbone.", "head.fc.", "distill."})


def test_sskd_on_turned_images(tmp_path: Path, teacher: dict) -> None:
    """With the teacher's network still to learn, and nothing of what it gets wrong kept."""
    sskd = dict(
        type="mmkd.SSKDDistiller",
        student=["backbone", "head.fc"],
        teacher=["backbone", "head.fc"],
        pretext=1,
        kept_turned=0.0,
        weight=2.0,
    )
    model = classifier()
    model["data_preprocessor"]["type"] = "mmkd.RotationPreprocessor"
    step = one_step(tmp_path, teacher, model, dict(one=sskd))

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        x = torch.cat([x.rot90(quarters, (2, 3)) for quarters in range(4)])
        ours, feature = affine(w, "head.fc", pooled(student_map(w, x))), pooled(teacher_map(t, x))
        theirs = affine(t, "head.fc", feature)
        is_right = theirs[BATCH:].argmax(dim=1) == y.repeat(3)
        found = 0.9 * kl(ours[:BATCH], theirs[:BATCH], 4.0)
        if is_right.any():
            found = found + 2.7 * kl(ours[BATCH:][is_right], theirs[BATCH:][is_right], 4.0)
        hidden = affine(w, "distill.one.teacher_network.0", feature).clamp(min=0)
        vectors = normalize(affine(w, "distill.one.teacher_network.2", hidden))
        similar = vectors[BATCH:] @ vectors[:BATCH].T
        pretext = cross_entropy(similar, torch.arange(BATCH).repeat(3))
        return cross_entropy(ours[:BATCH], y) / 4 + 2 * found + pretext

    check(step, objective, {"backbone.", "head.fc.", "distill.one.teacher_network"})


def test_cid_fills_the_head_that_is_deployed(tmp_path: Path, teacher: dict) -> None:
    """Before its contexts are known, the head has no loss of its own."""
    taps = ["backbone", "head.fc"]
    cid = dict(
        type="mmkd.CIDDistiller",
        student=taps,
        teacher=taps,
        student_classifier="head",
        initial=1,
        every=1,
    )
    head = linear_head()
    head["type"] = "mmkd.ContextClsHead"
    step = one_step(tmp_path, teacher, classifier(head=head), dict(one=cid))

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        f, g = pooled(student_map(w, x)), pooled(teacher_map(t, x))
        samples = (affine(w, "distill.one.layer", f) - g).square().sum(dim=1) / g.square().sum(
            dim=1
        )
        # Of class 0 alone there are two, the first and the last.
        ours, theirs = (normalize(z[[0, 3]]) for z in (f, g))
        classes = (ours @ ours.T - theirs @ theirs.T).square().sum() / 4
        logits = kl(affine(w, "head.fc", f), affine(t, "head.fc", g), 4.0)
        return logits + 10 * samples.mean() + classes

    check(step, objective, {"backbone.", "head.fc.", "distill."})
    images, labels = batch()
    before, theirs = ({k: v.double() for k, v in w.items()} for w in (step.before, step.file))
    features = pooled(student_map(before, images))
    logits = affine(theirs, "head.fc", pooled(teacher_map(theirs, images)))
    likely = (logits / 4).softmax(dim=1)[torch.arange(BATCH), labels]
    for label in range(3):
        own = labels == label
        mean = (likely[own, None] * features[own]).sum(dim=0) / likely[own].sum()
        torch.testing.assert_close(
            step.after["head.context"][label].double(), mean, rtol=1e-4, atol=1e-6
        )
    assert step.after["head.is_known"] and not step.before["head.is_known"]


def test_crd_remembers_the_images_of_the_batch(tmp_path: Path, teacher: dict) -> None:
    crd = dict(type="mmkd.CRDDistiller", num_images=9, negatives=3, width=5)
    step = one_step(tmp_path, teacher, classifier(), dict(one=crd))
    moved = step.after["distill.one.student_bank"] != step.before["distill.one.student_bank"]
    assert moved.any(dim=1).tolist() == [True] * BATCH + [False] * 5
    assert step.after["distill.one.labels"].tolist() == [0, 1, 2, 0, *[-1] * 5]
    trained = {name for name in step.moved() if name.startswith("distill.")}
    assert {name.split(".")[2] for name in trained} >= {"student_embedding", "teacher_embedding"}


def test_ft_and_afd_train(tmp_path: Path, teacher: dict) -> None:
    terms = dict(
        ft=dict(type="mmkd.FTDistiller", paraphrase=1, weight=5.0),
        afd=dict(type="mmkd.AFDDistiller", levels=[-1], weight=5.0),
    )
    step = one_step(tmp_path, teacher, classifier(), terms)
    moved = {".".join(name.split(".")[1:3]) for name in step.moved() if name.startswith("distill.")}
    assert {"ft.encoder", "ft.decoder"} <= moved and "ft.translator" not in moved
    assert set(distill_hook_of(step.runner).distillers) == {"ft", "afd"}
