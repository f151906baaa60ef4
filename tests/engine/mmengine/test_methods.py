"""One training step of each method, by MMEngine's Runner and by hand in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

from helpers.classifier_steps import (
    Weights,
    affine,
    check,
    connected,
    cross_entropy,
    kl,
    logsum,
    misaligned,
    mse,
    one_step,
    pooled,
    student_map,
    teacher_map,
)
from helpers.classifier_toy import (
    AS_THEY_ARE,
    CLASSES,
    INHERIT,
    JOINT_TERM,
    KD_TERM,
    LOGITS_TERM,
    SIMKD_TERM,
    SRRL_TERM,
    classifier,
    connector_head,
    linear_head,
    tiny_deit,
    write_classifier,
)
from helpers.toy import differences


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return write_classifier(tmp_path_factory.mktemp("teacher"))


# Methods ----------------------------------------------------------------------------------

BACKBONE_AND_CLASSIFIER = {"backbone.", "head.fc."}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd(tmp_path: Path, teacher: dict, temperature: float) -> None:
    """Hinton et al.: 0.1 CE + 0.9 T^2 KL."""
    loss = dict(type="mmkd.KDLoss", temperature=temperature)
    model = classifier(head=linear_head(loss=dict(type="CrossEntropyLoss", loss_weight=0.1)))
    step = one_step(tmp_path, teacher, model, dict(kd={**KD_TERM, "loss": loss, "weight": 0.9}))

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        ours = affine(w, "head.fc", pooled(student_map(w, x)))
        theirs = affine(t, "head.fc", pooled(teacher_map(t, x)))
        return 0.1 * cross_entropy(ours, y) + 0.9 * kl(ours, theirs, temperature)

    check(step, objective, BACKBONE_AND_CLASSIFIER)


@pytest.mark.parametrize("mlp", [False, True])
def test_logsum_and_kl(tmp_path: Path, teacher: dict, mlp: bool) -> None:
    """Miles & Mikolajczyk: CE + 2 LogSum + KL at temperature 1, linear or MLP projector."""
    feature: dict[str, Any] = dict(view="global", weight=2.0)
    if mlp:
        feature["projector"] = dict(type="mmkd.MLPProjector", hidden_channels=5)
    kd = {**KD_TERM, "loss": dict(type="mmkd.KDLoss", temperature=1.0)}
    step = one_step(tmp_path, teacher, classifier(), dict(feature=feature, kd=kd))
    name = "distill.feature.projector"

    def project(w: Weights, s: Tensor) -> Tensor:
        if not mlp:
            return affine(w, f"{name}.linear", s)
        return affine(w, f"{name}.layers.1", affine(w, f"{name}.layers.0", s).clamp(min=0))

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        s, f = pooled(student_map(w, x)), pooled(teacher_map(t, x))
        ours, theirs = affine(w, "head.fc", s), affine(t, "head.fc", f)
        return cross_entropy(ours, y) + 2 * logsum(project(w, s), f) + kl(ours, theirs, 1.0)

    trained = BACKBONE_AND_CLASSIFIER | {"distill."}
    # BatchNorm takes the mean away: a last bias has no gradient but rounding's.
    last = f"{name}.layers.1.bias" if mlp else f"{name}.linear.bias"
    assert (step.after.pop(last) - step.before.pop(last)).abs().max() < 1e-5
    bias = torch.zeros(6, dtype=torch.float64)
    check(step, lambda w, *rest: objective({**w, last: bias}, *rest), trained)


@pytest.mark.parametrize("q", [1, 3])
def test_projector_ensemble(tmp_path: Path, teacher: dict, q: int) -> None:
    """Chen et al., Eq. (5) and (7): CE + 25 (1 - mean cosine)."""
    feature = dict(
        view="global",
        projector=dict(type="mmkd.ProjectorEnsemble", num_projectors=q),
        normalizer=dict(type="mmkd.IdentityNormalizer"),
        loss=dict(type="mmkd.DirectionAlignmentLoss"),
        weight=25.0,
    )
    step = one_step(tmp_path, teacher, classifier(), dict(feature=feature))

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        s, f = pooled(student_map(w, x)), pooled(teacher_map(t, x))
        members = affine(w, "distill.feature.projector.linear", s).clamp(min=0)
        projected = sum(members[:, 6 * k : 6 * k + 6] for k in range(q)) / q
        return cross_entropy(affine(w, "head.fc", s), y) + 25 * misaligned(projected, f)

    check(step, objective, BACKBONE_AND_CLASSIFIER | {"distill."})


@pytest.mark.parametrize("k", [2, 3])
def test_deep_cascade(tmp_path: Path, teacher: dict, k: int) -> None:
    """Chen et al., Figure 4: k layers of the teacher's width, each followed by ReLU."""
    feature = dict(
        view="global",
        projector=dict(
            type="mmkd.MLPProjector", hidden_channels=None, num_layers=k, activate_output=True
        ),
        normalizer=dict(type="mmkd.IdentityNormalizer"),
        loss=dict(type="mmkd.DirectionAlignmentLoss"),
        weight=25.0,
    )
    step = one_step(tmp_path, teacher, classifier(), dict(feature=feature))
    name = "distill.feature.projector.layers"
    assert step.before[f"{name}.{k - 1}.weight"].shape == (6, 6)

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        s, f = pooled(student_map(w, x)), pooled(teacher_map(t, x))
        projected = s
        for layer in range(k):
            projected = affine(w, f"{name}.{layer}", projected).clamp(min=0)
        return cross_entropy(affine(w, "head.fc", s), y) + 25 * misaligned(projected, f)

    check(step, objective, BACKBONE_AND_CLASSIFIER | {"distill."})


def test_srrl(tmp_path: Path, teacher: dict) -> None:
    """Yang et al.: CE of the student's own classifier, feature matching, softmax regression."""
    loss = dict(type="mmkd.SoftmaxRegressionLoss", feature_weight=0.5, logit_weight=2.0)
    term = {**SRRL_TERM, "loss": loss, "weight": 1.5}
    step = one_step(tmp_path, teacher, classifier(), dict(srrl=term))

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        s, f = student_map(w, x), pooled(teacher_map(t, x))
        p = pooled(connected(w, "distill.srrl.projector", s))
        logits = mse(affine(t, "head.fc", p), affine(t, "head.fc", f))
        own = cross_entropy(affine(w, "head.fc", pooled(s)), y)
        return own + 1.5 * (0.5 * mse(p, f) + 2 * logits)

    check(step, objective, BACKBONE_AND_CLASSIFIER | {"distill."})


@pytest.mark.parametrize("layout", ["1x1", "1x1-1x1", "1x1-3x3-1x1"])
def test_simkd(tmp_path: Path, teacher: dict, layout: str) -> None:
    """Chen et al., CVPR 2022: the map alone; labels teach nothing, the classifier stays."""
    head = connector_head(
        loss=dict(type="CrossEntropyLoss", loss_weight=0.0),
        connector=dict(type="mmkd.ConvConnector", layout=layout),
    )
    model = classifier(head=head)
    step = one_step(tmp_path, teacher, model, dict(map=SIMKD_TERM), inherit=INHERIT)

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        return mse(connected(w, "head.connector", student_map(w, x)), teacher_map(t, x))

    check(step, objective, {"backbone.", "head.connector."})
    check_classifier_is_the_teachers(step.before, step.file)
    check_classifier_is_the_teachers(step.after, step.file)


def check_classifier_is_the_teachers(student: Weights, teacher: Weights) -> None:
    for name in ("head.fc.weight", "head.fc.bias"):
        assert torch.equal(student[name], teacher[name])


def test_ijckd_with_the_teacher_s_classifier(tmp_path: Path, teacher: dict) -> None:
    """Li et al.: CE + MSE of logits + MSE of maps, all under the teacher's classifier."""
    terms = dict(map=SIMKD_TERM, logits=LOGITS_TERM)
    model = classifier(head=connector_head())
    step = one_step(tmp_path, teacher, model, terms, inherit=INHERIT)

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        ours, theirs = connected(w, "head.connector", student_map(w, x)), teacher_map(t, x)
        logits = [affine(t, "head.fc", pooled(each)) for each in (ours, theirs)]
        return cross_entropy(logits[0], y) + mse(*logits) + mse(ours, theirs)

    check(step, objective, {"backbone.", "head.connector."})
    check_classifier_is_the_teachers(step.after, step.file)


def test_ijckd_with_a_joint_classifier(tmp_path: Path, teacher: dict) -> None:
    """Li et al., Definition 2: one classifier learns from both representations."""
    terms = dict(map=SIMKD_TERM, joint=JOINT_TERM)
    model = classifier(head=connector_head(freeze_classifier=False))
    step = one_step(tmp_path, teacher, model, terms, inherit=INHERIT)
    check_classifier_is_the_teachers(step.before, step.file)

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor, labels_on: str = "st") -> Tensor:
        ours, theirs = connected(w, "head.connector", student_map(w, x)), teacher_map(t, x)
        logits = [affine(w, "head.fc", pooled(each)) for each in (ours, theirs)]
        of_labels = sum(cross_entropy(logits["st".index(side)], y) for side in labels_on)
        return of_labels + mse(*logits) + mse(ours, theirs)

    check(step, objective, {"backbone.", "head.connector.", "head.fc."})
    # Either side alone would have moved the classifier elsewhere.
    for side in "st":
        with pytest.raises(AssertionError, match="Tensor-likes are not close"):
            check(step, lambda *a, s=side: objective(*a, labels_on=s), step.moved())


def test_ijckd_with_the_student_s_own_classifier(tmp_path: Path, teacher: dict) -> None:
    """The student is deployed without its connector; logits of two classifiers are matched."""
    of_map = dict(
        projector=dict(type="mmkd.ConvConnector"),
        normalizer=dict(type="mmkd.IdentityNormalizer"),
        loss=dict(type="mmkd.MSELoss"),
    )
    terms = dict(map=of_map, logits=LOGITS_TERM)
    step = one_step(tmp_path, teacher, classifier(), terms)

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        s, f = student_map(w, x), teacher_map(t, x)
        ours, theirs = affine(w, "head.fc", pooled(s)), affine(t, "head.fc", pooled(f))
        of_maps = mse(connected(w, "distill.map.projector", s), f)
        return cross_entropy(ours, y) + mse(ours, theirs) + of_maps

    check(step, objective, BACKBONE_AND_CLASSIFIER | {"distill."})


@pytest.mark.parametrize("hard", [True, False])
def test_deit(tmp_path: Path, teacher: dict, hard: bool) -> None:
    """Touvron et al., Eq. (2) and (3): labels teach the class token, the teacher the other."""
    lam = 0.5 if hard else 0.1
    kind = (
        dict(type="mmkd.HardDistillationLoss") if hard else dict(type="mmkd.KDLoss", temperature=3)
    )
    term = dict(student="head.layers.head_dist", teacher="head.fc", loss=kind, weight=lam)
    model = tiny_deit()
    model["head"]["loss"] = dict(type="CrossEntropyLoss", loss_weight=1 - lam)
    step = one_step(tmp_path, teacher, model, dict(dist=term))
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        backbone = MODELS.build(model["backbone"]).double()

    def objective(w: Weights, t: Weights, x: Tensor, y: Tensor) -> Tensor:
        of_backbone = {k.removeprefix("backbone."): v for k, v in w.items() if "backbone." in k}
        ((of_class, of_teacher),) = torch.func.functional_call(backbone, of_backbone, x)
        own = cross_entropy(affine(w, "head.layers.head", of_class), y)
        distilled = affine(w, "head.layers.head_dist", of_teacher)
        theirs = affine(t, "head.fc", pooled(teacher_map(t, x)))
        chosen = theirs.argmax(dim=1)
        rest = cross_entropy(distilled, chosen) if hard else kl(distilled, theirs, 3.0)
        return (1 - lam) * own + lam * rest

    check(step, objective, {"backbone.", "head."})
    assert step.before["head.layers.head_dist.weight"].shape == (CLASSES, 8)


def test_logits_are_compared_as_they_are_unless_told_otherwise(
    tmp_path: Path, teacher: dict
) -> None:
    step = one_step(tmp_path, teacher, classifier(), dict(kd=KD_TERM))
    spelled = one_step(tmp_path, teacher, classifier(), dict(kd={**KD_TERM, **AS_THEY_ARE}))
    assert not differences(step.after, spelled.after)
