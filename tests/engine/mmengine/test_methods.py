"""One training step of each method, by MMEngine's Runner and by hand in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.functional import conv2d

from helpers.classifier_toy import (
    AS_THEY_ARE,
    CLASSES,
    INHERIT,
    JOINT_TERM,
    KD_TERM,
    LOGITS_TERM,
    PREPROCESSOR,
    SIMKD_TERM,
    SRRL_TERM,
    LabelledNoise,
    classifier,
    classifier_config,
    connector_head,
    distill,
    linear_head,
    tiny_deit,
    write_classifier,
)
from helpers.toy import Probe, differences, distill_hook_of, train

LEARNING_RATE = 0.1
BATCH = 4

Weights = dict[str, Tensor]


@dataclass
class Step:
    """A run of one iteration: all weights before and after it, by name, and the teacher's."""

    runner: Runner
    before: Weights
    after: Weights
    teacher: Weights
    file: Weights = field(repr=False)

    def moved(self) -> set[str]:
        """Names of the parameters that are not what they were."""
        parameters = [k for k in self.before if not k.endswith(BUFFERS)]
        return {k for k in parameters if not torch.equal(self.before[k], self.after[k])}


BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def weights_of(runner: Runner) -> Weights:
    """Student's and projectors', the latter under the names of their terms."""
    distillers = distill_hook_of(runner).distillers
    both = {**runner.model.state_dict(), **distillers.state_dict(prefix="distill.")}
    return {name: value.detach().clone() for name, value in both.items()}


def one_step(folder: Path, teacher: dict, model: dict, terms: dict, **settings: Any) -> Step:
    """Trains for one iteration of SGD on the first four images."""
    before: Weights = {}
    config = classifier_config(folder, model, **distill(teacher, terms, **settings))
    config.train_cfg.max_epochs = 1
    config.train_dataloader.dataset.length = BATCH
    config.train_dataloader.sampler.shuffle = False
    config.optim_wrapper.optimizer = dict(type="SGD", lr=LEARNING_RATE)
    runner = train(config, Probe(before_train=lambda runner: before.update(weights_of(runner))))
    assert runner.iter == 1
    (of_hook,) = distill_hook_of(runner).teachers.values()
    assert all(parameter.grad is None for parameter in of_hook.model.parameters())
    return Step(
        runner=runner,
        before=before,
        after=weights_of(runner),
        teacher={k: v.clone() for k, v in of_hook.model.state_dict().items()},
        file=torch.load(teacher["checkpoint"])["state_dict"],
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return write_classifier(tmp_path_factory.mktemp("teacher"))


# By hand ----------------------------------------------------------------------------------


def batch() -> tuple[Tensor, Tensor]:
    """The four images as RGB, normalised, and their labels."""
    images = torch.stack([LabelledNoise().image(i) for i in range(BATCH)]).double()
    mean, std = (torch.tensor(PREPROCESSOR[k]).double().view(1, 3, 1, 1) for k in ("mean", "std"))
    return (images.flip(1) - mean) / std, torch.tensor([0, 1, 2, 0])


def student_map(w: Weights, x: Tensor) -> Tensor:
    convolved = conv2d(x, w["backbone.conv.weight"], w["backbone.conv.bias"], stride=2, padding=1)
    return convolved.clamp(min=0)


def teacher_map(w: Weights, x: Tensor) -> Tensor:
    """With BatchNorm's running statistics: the teacher is in evaluation mode."""
    x = conv2d(x, w["backbone.conv.weight"], w["backbone.conv.bias"], stride=2, padding=1)
    scale = w["backbone.norm.weight"] / (w["backbone.norm.running_var"] + 1e-5).sqrt()
    shift = w["backbone.norm.bias"] - scale * w["backbone.norm.running_mean"]
    return (x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).clamp(min=0)


def pooled(x: Tensor) -> Tensor:
    return x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])


def affine(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def connected(w: Weights, name: str, x: Tensor) -> Tensor:
    """Convolutions, each with BatchNorm on the batch's statistics and ReLU."""
    index = 0
    while f"{name}.layers.{index}.weight" in w:
        kernel = w[f"{name}.layers.{index}.weight"]
        x = conv2d(x, kernel, padding=kernel.shape[-1] // 2)
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        variance = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)
        gamma, beta = (
            w[f"{name}.layers.{index + 1}.{k}"].view(1, -1, 1, 1) for k in ("weight", "bias")
        )
        x = (gamma * (x - mean) / (variance + 1e-5).sqrt() + beta).clamp(min=0)
        index += 3
    return x


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return -p[torch.arange(len(labels)), labels].log().mean()


def mse(a: Tensor, b: Tensor) -> Tensor:
    assert a.shape == b.shape
    return ((a - b) ** 2).sum() / a.numel()


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    p, q = ((each / temperature).exp() for each in (student, teacher))
    p, q = (each / each.sum(dim=1, keepdim=True) for each in (p, q))
    return temperature**2 * (q * (q / p).log()).sum() / len(p)


def standardised(x: Tensor) -> Tensor:
    mean = x.mean(dim=0)
    return (x - mean) / ((x - mean).square().mean(dim=0) + 1e-4).sqrt()


def logsum(student: Tensor, teacher: Tensor) -> Tensor:
    difference = standardised(student) - standardised(teacher)
    return ((difference**2) ** 2).sum().add(1e-12).log()


def misaligned(student: Tensor, teacher: Tensor) -> Tensor:
    lengths = (student**2).sum(1).sqrt() * (teacher**2).sum(1).sqrt()
    return 1 - ((student * teacher).sum(1) / lengths).mean()


Objective = Callable[[Weights, Weights, Tensor, Tensor], Tensor]


def check(step: Step, objective: Objective, trained: set[str]) -> None:
    """Every weight after the step, and which of them moved.

    Args:
        objective: Of the student's and the projectors' weights, the teacher's, images and labels.
        trained: First parts of the names of the parameters that the method trains.
    """
    images, labels = batch()
    teacher = {k: v.double() for k, v in step.file.items()}
    names = [k for k in step.before if not k.endswith(BUFFERS)]
    ours = {k: step.before[k].double().requires_grad_() for k in names}
    value = objective(ours, teacher, images, labels)
    gradients = torch.autograd.grad(value, list(ours.values()), allow_unused=True)
    expected_to_move = {k for k in names if any(k.startswith(each) for each in trained)}
    assert step.moved() == expected_to_move
    for (name, weight), gradient in zip(ours.items(), gradients, strict=True):
        if name not in expected_to_move:
            continue
        assert gradient is not None, name
        moved = step.before[name].double() - step.after[name].double()
        torch.testing.assert_close(
            moved, LEARNING_RATE * gradient, rtol=1e-4, atol=1e-6, msg=lambda m, k=name: f"{k}: {m}"
        )
        after = weight.detach() - LEARNING_RATE * gradient
        torch.testing.assert_close(step.after[name].double(), after, rtol=1e-4, atol=1e-6)
    # The step saw each batch statistic once, and the teacher is what its file holds.
    tracked = [k for k in step.before if k.endswith("num_batches_tracked")]
    assert all(step.after[k] == 1 for k in tracked)
    assert not differences(dict(step.file), step.teacher)


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
