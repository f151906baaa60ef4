"""Baselines with a distiller of their own, stages or teachers of another kind: training steps by
MMEngine's Runner and by hand."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor
from torch.nn.functional import conv2d, leaky_relu, normalize

from helpers.classifier_steps import (
    BATCH,
    Weights,
    affine,
    batch,
    check,
    cross_entropy,
    first_map,
    kl,
    mse,
    normed_map,
    one_step,
    others,
    pooled,
    student_map,
    teacher_map,
)
from helpers.classifier_toy import (
    HEAD_INIT,
    KD_TERM,
    classifier,
    classifier_config,
    linear_head,
    tiny_deit,
    write_classifier,
)
from helpers.toy import distill_hook_of
from mmkd.seeded_draws import SeededDraws


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return write_classifier(tmp_path_factory.mktemp("teacher"))


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


@pytest.mark.parametrize("iterations", [1, 2])
def test_sskd_on_turned_images(tmp_path: Path, teacher: dict, iterations: int) -> None:
    """With the teacher's network still to learn, then with its relations to be learned; of what it
    gets wrong all relations are kept but the worst quarter, and no logits."""
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
    step = one_step(tmp_path, teacher, model, dict(one=sskd), iterations)

    def similar(w: Weights, name: str, feature: Tensor) -> Tensor:
        hidden = affine(w, f"distill.one.{name}.0", feature).clamp(min=0)
        vectors = normalize(affine(w, f"distill.one.{name}.2", hidden))
        return vectors[BATCH:] @ vectors[:BATCH].T

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        x = torch.cat([x.rot90(quarters, (2, 3)) for quarters in range(4)])
        ours, theirs = pooled(student_map(w, x)), pooled(teacher_map(t, x))
        logits, their_logits = affine(w, "head.fc", ours), affine(t, "head.fc", theirs)
        is_right = their_logits[BATCH:].argmax(dim=1) == y.repeat(3)
        assert is_right.any() and not is_right.all()
        found = 0.9 * kl(logits[:BATCH], their_logits[:BATCH], 4.0)
        turned = [each[BATCH:][is_right] for each in (logits, their_logits)]
        found = cross_entropy(logits[:BATCH], y) / 4 + 2 * (found + 2.7 * kl(*turned, 4.0))
        own = torch.arange(BATCH).repeat(3)
        relations = similar(w, "teacher_network", theirs)
        if iterations == 1:
            return found + cross_entropy(relations, own)
        better = [int((row > row[k]).sum()) for row, k in zip(relations, own, strict=True)]
        # Of those at equal places the first are kept.
        order = sorted(range(len(better)), key=better.__getitem__)
        kept = order[: better.count(0) + 3 * (len(better) - better.count(0)) // 4]
        assert 0 < better.count(0) and len(kept) < len(better)
        relations = relations.detach()
        of_student = similar(w, "student_network", ours)
        return found + 20 * kl(of_student[kept], relations[kept], 0.5)

    network = "teacher_network" if iterations == 1 else "student_network"
    check(step, objective, {"backbone.", "head.fc.", f"distill.one.{network}"})


@pytest.mark.parametrize("iterations", [2, 3])
def test_cid_fills_the_head_that_is_deployed(
    tmp_path: Path, teacher: dict, iterations: int
) -> None:
    """Before its contexts are known, the head has no loss of its own; those of an epoch, here of
    one iteration, are given to it in the next, after its loss."""
    taps = ["backbone", "head.fc"]
    cid = dict(
        type="mmkd.CIDDistiller",
        student=taps,
        teacher=taps,
        student_classifier="head",
        initial=1,
        every=1,
        samples=0.5,
    )
    head = linear_head()
    head["type"] = "mmkd.ContextClsHead"
    step = one_step(tmp_path, teacher, classifier(head=head), dict(one=cid), iterations)
    images, labels = batch()

    def contexts(weights: Weights) -> Tensor:
        features = pooled(student_map(weights, images))
        theirs = {k: v.double() for k, v in step.file.items()}
        logits = affine(theirs, "head.fc", pooled(teacher_map(theirs, images)))
        likely = (logits / 4).softmax(dim=1)[torch.arange(BATCH), labels]
        own = [labels == label for label in range(3)]
        means = [(likely[k, None] * features[k]).sum(dim=0) / likely[k].sum() for k in own]
        return torch.stack(means)

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        f, g = pooled(student_map(w, x)), pooled(teacher_map(t, x))
        apart = (affine(w, "distill.one.layer", f) - g).square().sum(dim=1)
        samples = apart / g.square().sum(dim=1)
        # Of class 0 alone there are two, the first and the last.
        ours, theirs = (normalize(z[[0, 3]]) for z in (f, g))
        classes = (ours @ ours.T - theirs @ theirs.T).square().sum() / 4
        first = affine(w, "head.fc", f)
        found = kl(first, affine(t, "head.fc", g), 4.0) + samples.mean() / 2 + classes
        if iterations == 2:
            return found
        seen = (first.detach() / 4).softmax(dim=1) @ contexts(doubles(step.seen[0]))
        return found + cross_entropy(affine(w, "head.context_fc", torch.cat([f, seen], dim=1)), y)

    own = {"head."} if iterations == 3 else {"head.fc."}
    check(step, objective, {"backbone.", "distill."} | own)
    found = step.after["head.context"].double()
    torch.testing.assert_close(
        found, contexts(doubles(step.seen[iterations - 2])), rtol=1e-4, atol=1e-6
    )
    assert step.after["head.is_known"] and not step.seen[1]["head.is_known"]


def doubles(weights: Weights) -> Weights:
    return {k: v.double() for k, v in weights.items()}


@pytest.mark.parametrize("iterations", [1, 2])
def test_crd_against_the_images_of_other_classes(
    tmp_path: Path, teacher: dict, iterations: int
) -> None:
    """At first no label is known, then those of the batch; Z stays that of the first batch."""
    settings = dict(num_images=9, negatives=3, width=5)
    crd = dict(type="mmkd.CRDDistiller", weight=0.8, **settings)
    step = one_step(tmp_path, teacher, classifier(), dict(one=crd), iterations)
    name = "distill.one."
    seeded = SeededDraws(distill_hook_of(step.runner).distillers["one"].draws.seed)
    draws = [seeded((BATCH, 3), torch.device("cpu")).tolist() for _ in range(iterations)]

    def vectors(w: Weights, t: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
        ours = affine(w, f"{name}student_embedding", pooled(student_map(w, x)))
        theirs = affine(w, f"{name}teacher_embedding", pooled(teacher_map(t, x)))
        return normalize(ours), normalize(theirs)

    def compared(w: Weights, t: Weights, x: Tensor, y: Tensor, iteration: int) -> list[Tensor]:
        known = y.tolist() + [-1] * 5 if iteration else [-1] * 9
        order = sorted(range(9), key=known.__getitem__)
        chosen = []
        for image, row in enumerate(draws[iteration]):
            apart = [k for k in order if known[k] != y[image]]
            chosen.append([image] + [apart[int(draw * len(apart))] for draw in row])
        ours, theirs = vectors(w, t, x)
        pairs = ((ours, w[f"{name}teacher_bank"]), (theirs, w[f"{name}student_bank"]))
        return [
            torch.einsum("nc,nkc->nk", each, bank[torch.tensor(chosen)]) / 0.07
            for each, bank in pairs
        ]

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        found = cross_entropy(affine(w, "head.fc", pooled(student_map(w, x))), y)
        first = compared(doubles(step.seen[0]), t, x, y, 0)
        for logits, of_first in zip(compared(w, t, x, y, iterations - 1), first, strict=True):
            likely = logits.exp() / (9 * of_first.exp().mean())
            h = likely / (likely + 3 / 9)
            found = found - 0.8 * (h[:, 0].log() + (1 - h[:, 1:]).log().sum(dim=1)).mean()
        return found

    check(step, objective, {"backbone.", "head.fc.", name})
    images, labels = batch()
    before = doubles(step.before)
    both = vectors(before, doubles(step.file), images)
    for side, seen in zip(("student", "teacher"), both, strict=True):
        bank = before[f"{name}{side}_bank"]
        bank[:BATCH] = normalize((bank[:BATCH] + seen) / 2)
        after = step.after[f"{name}{side}_bank"].double()
        torch.testing.assert_close(after, bank, rtol=1e-4, atol=1e-6)
    assert step.after[f"{name}labels"].tolist() == [*labels.tolist(), *[-1] * 5]


def convolved(w: Weights, name: str, x: Tensor, is_frozen: bool = False) -> Tensor:
    """Three 3x3 convolutions, each with BatchNorm and leaky ReLU."""
    for index in (0, 3, 6):
        x = conv2d(x, w[f"{name}.{index}.weight"], padding=1)
        norm = {k: w[f"{name}.{index + 1}.{k}"].view(1, -1, 1, 1) for k in NORM}
        mean, variance = norm["running_mean"], norm["running_var"]
        if not is_frozen:
            mean = x.mean(dim=(0, 2, 3), keepdim=True)
            variance = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)
        x = norm["weight"] * (x - mean) / (variance + 1e-5).sqrt() + norm["bias"]
        x = leaky_relu(x, 0.1)
    return x


NORM = ("weight", "bias", "running_mean", "running_var")


@pytest.mark.parametrize("iterations", [1, 2])
def test_ft_paraphrases_then_transfers(tmp_path: Path, teacher: dict, iterations: int) -> None:
    """A weight does not change the paraphraser's training."""
    ft = dict(type="mmkd.FTDistiller", paraphrase=1, weight=5.0)
    step = one_step(tmp_path, teacher, classifier(), dict(one=ft), iterations)

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        ours, theirs = student_map(w, x), teacher_map(t, x)
        found = cross_entropy(affine(w, "head.fc", pooled(ours)), y)
        if iterations == 1:
            encoded = convolved(w, "distill.one.encoder", theirs)
            return found + mse(convolved(w, "distill.one.decoder", encoded), theirs)
        factor = convolved(w, "distill.one.encoder", theirs, is_frozen=True).detach()
        translated = convolved(w, "distill.one.translator", ours)
        sides = [normalize(each.flatten(1)) for each in (translated, factor)]
        return found + 5 * (sides[0] - sides[1]).abs().mean()

    stages = [("encoder", "decoder"), ("translator",)]
    trained = {f"distill.one.{each}" for each in stages[iterations - 1]}
    check(step, objective, {"backbone.", "head.fc."} | trained)


def test_afd_attends_to_levels(tmp_path: Path, teacher: dict) -> None:
    """Two of the student's, three of the teacher's."""
    afd = dict(
        type="mmkd.AFDDistiller",
        student=["backbone.conv", "backbone"],
        teacher=["backbone.conv", "backbone.norm", "backbone"],
        width=5,
        weight=50.0,
    )
    step = one_step(tmp_path, teacher, classifier(), dict(one=afd))
    name = "distill.one"
    # BatchNorm takes the mean away: what is added before has no gradient but rounding's.
    for bias in [k for k in step.before if k.endswith("linear.bias")]:
        assert (step.after.pop(bias) - step.before.pop(bias)).abs().max() < 1e-5

    def normed(w: Weights, name: str, x: Tensor) -> Tensor:
        x = x @ w[f"{name}.linear.weight"].T
        x = (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + 1e-5).sqrt()
        return w[f"{name}.norm.weight"] * x + w[f"{name}.norm.bias"]

    def pattern(x: Tensor) -> Tensor:
        return normalize(x.square().mean(dim=1).flatten(1))

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        ours = [first_map(w, x), student_map(w, x)]
        theirs = [first_map(t, x), normed_map(t, x), teacher_map(t, x)]
        keys = [normed(w, f"{name}.keys.{i}", pooled(s)).clamp(min=0) for i, s in enumerate(ours)]
        queries = [normed(w, f"{name}.queries.{i}", pooled(s)) for i, s in enumerate(theirs)]
        # Of both of the student's levels in one batch.
        turned = normed(w, f"{name}.bilinear", torch.cat(keys)).reshape(2, BATCH, 3, 5)
        found = cross_entropy(affine(w, "head.fc", pooled(ours[1])), y)
        for i, their in enumerate(theirs):
            place = w[f"{name}.teacher_places"][i]
            logits = [
                (queries[i] * turned[k, :, i]).sum(dim=1) + place @ w[f"{name}.student_places"][k]
                for k in range(2)
            ]
            attention = (torch.stack(logits, dim=1) / 5**0.5).softmax(dim=1)
            for k, our in enumerate(ours):
                squares = (pattern(our) - pattern(their)).square().mean(dim=1)
                found = found + 50 * (attention[:, k] * squares).mean()
        return found

    check(step, objective, {"backbone.", "head.fc.", "distill."})


def test_co_advise_by_two_teachers(tmp_path: Path, teacher: dict) -> None:
    """A token and a classifier for either, beside those that labels teach."""
    teachers = dict(
        convolution=teacher, involution=write_classifier(tmp_path, "involution", 8, width=5)
    )
    classifiers = dict(convolution="head.layers.head_conv", involution="head.layers.head_inv")
    terms = {
        source: {
            **KD_TERM,
            "student": own,
            "source": source,
            "loss": dict(type="mmkd.KDLoss", temperature=1.0),
        }
        for source, own in classifiers.items()
    }
    model = tiny_deit(dict(type="mmkd.CivTClsHead", num_classes=3, in_channels=8))
    model["head"]["init_cfg"] = HEAD_INIT
    model["backbone"]["type"] = "mmkd.CivT"
    step = one_step(tmp_path, teachers, model, terms)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        backbone = MODELS.build(model["backbone"]).double()

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        of_backbone = {k.removeprefix("backbone."): v for k, v in w.items() if "backbone." in k}
        ((first, *tokens),) = torch.func.functional_call(backbone, of_backbone, x)
        found = cross_entropy(affine(w, "head.layers.head", first), y)
        for (source, own), token in zip(classifiers.items(), tokens, strict=True):
            of_teacher = {k.removeprefix(f"{source}."): v for k, v in t.items()}
            theirs = affine(of_teacher, "head.fc", pooled(teacher_map(of_teacher, x)))
            found = found + kl(affine(w, own, token), theirs, 1.0)
        return found

    check(step, objective, {"backbone.", "head."})


def test_an_averaged_student_teaches(tmp_path: Path) -> None:
    """The mean of two iterations' weights before the second, before the third 0.6 of that."""
    kd = dict(KD_TERM, loss=dict(type="mmkd.KDLoss", temperature=4.0), weight=0.9)
    step = one_step(tmp_path, dict(ema=0.6), classifier(), dict(one=kd), iterations=3)
    first, second, third = map(doubles, step.seen)
    average = {k: 0.6 * (first[k] + second[k]) / 2 + 0.4 * third[k] for k in first}

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        ours, theirs = (
            affine(each, "head.fc", pooled(student_map(each, x))) for each in (w, average)
        )
        return cross_entropy(ours, y) + 0.9 * kl(ours, theirs, 4.0)

    check(step, objective, {"backbone.", "head.fc."})
