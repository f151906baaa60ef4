from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mmkd.losses import JointClassifierLoss, SoftmaxRegressionLoss
from mmkd.losses.joint_classifier import joint_classifier
from mmkd.losses.softmax_regression import softmax_regression
from mmkd.targets import Targets

seeds = st.integers(0, 2**16)
counts = st.integers(1, 4)
weights = st.floats(0, 10)


def _random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _classifier(channels: int, classes: int, seed: int = 0, bias: bool = True) -> nn.Linear:
    classifier = nn.utils.skip_init(nn.Linear, channels, classes, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        for index, parameter in enumerate(classifier.parameters()):
            parameter.copy_(_random(*parameter.shape, seed=seed + index + 1))
    return classifier


def _logits(classifier: nn.Linear, samples: Tensor) -> list[list[float]]:
    weight = classifier.weight.tolist()
    bias = [0.0] * len(weight) if classifier.bias is None else classifier.bias.tolist()
    return [
        [
            sum(w * x for w, x in zip(row, s, strict=True)) + b
            for row, b in zip(weight, bias, strict=True)
        ]
        for s in samples.tolist()
    ]


def _mean_square(a: list[list[float]], b: list[list[float]]) -> float:
    pairs = [(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)]
    return sum((x - y) ** 2 for x, y in pairs) / len(pairs)


def _cross_entropy(logits: list[list[float]], targets: list[list[float]]) -> float:
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        logsum = max(row) + math.log(sum(math.exp(each - max(row)) for each in row))
        total += sum(y * (logsum - each) for y, each in zip(target, row, strict=True))
    return total / len(logits)


def of_labels(labels: Tensor) -> Targets:
    """Of a batch that shows these classes; its size in pixels does not matter."""
    return Targets((1, 1), labels=labels)


# SRRL


def test_softmax_regression_by_hand() -> None:
    classifier = nn.Linear(2, 1)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[2.0, -1.0]]))
        classifier.bias.fill_(100.0)
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    # Features differ by (1, -3), logits by 2 + 3.
    expected = (1 + 9) / 2 + 25
    loss = SoftmaxRegressionLoss(classifier)
    assert loss(student, teacher).item() == pytest.approx(expected)
    weighted = SoftmaxRegressionLoss(classifier, feature_weight=3, logit_weight=0.5)
    assert weighted(student, teacher).item() == pytest.approx(3 * 5 + 0.5 * 25)


@given(seed=seeds, m=counts, c=counts, k=counts, a=weights, b=weights, bias=st.booleans())
def test_softmax_regression_against_loops(
    seed: int, m: int, c: int, k: int, a: float, b: float, bias: bool
) -> None:
    student, teacher = _random(2, m, c, seed=seed)
    classifier = _classifier(c, k, seed, bias)
    features = _mean_square(student.tolist(), teacher.tolist())
    logits = _mean_square(_logits(classifier, student), _logits(classifier, teacher))
    value = SoftmaxRegressionLoss(classifier, a, b)(student, teacher)
    assert value.item() == pytest.approx(a * features + b * logits)
    assert torch.equal(value, softmax_regression(student, teacher, classifier, a, b))


@given(seed=seeds)
def test_softmax_regression_s_gradient_by_the_formula(seed: int) -> None:
    student, teacher = _random(2, 4, 3, seed=seed)
    classifier = _classifier(3, 5, seed).requires_grad_(False)
    SoftmaxRegressionLoss(classifier, 2.0, 3.0)(student.requires_grad_(), teacher).backward()
    difference = (student - teacher).detach()
    through = difference @ classifier.weight.T @ classifier.weight
    expected = 2.0 * 2 * difference / (4 * 3) + 3.0 * 2 * through / (4 * 5)
    torch.testing.assert_close(student.grad, expected)


def test_a_frozen_classifier_gets_no_gradient() -> None:
    classifier = _classifier(3, 5).requires_grad_(False)
    student, teacher = _random(2, 4, 3)
    SoftmaxRegressionLoss(classifier)(student.requires_grad_(), teacher).backward()
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_what_no_classifier_sees_is_matched_by_the_features_alone() -> None:
    """Along the kernel of the classifier only the feature's distance is left."""
    classifier = _classifier(3, 2)
    teacher = _random(4, 3)
    unseen = torch.linalg.svd(classifier.weight.detach()).Vh[-1]
    student = teacher + 2 * unseen
    assert SoftmaxRegressionLoss(classifier, 0.0)(student, teacher).item() == pytest.approx(0)
    assert SoftmaxRegressionLoss(classifier)(student, teacher).item() == pytest.approx(4 / 3)


# The joint classifier


def test_joint_classifier_by_hand() -> None:
    classifier = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[1.0], [0.0]]))
    student, teacher = torch.tensor([[2.0]]), torch.tensor([[math.log(3)]])
    # The teacher's logits log 3 and 0 give 3/4 to class 0.
    apart = (2 - math.log(3)) ** 2 / 2
    for label, probability in ((0, 3 / 4), (1, 1 / 4)):
        loss = JointClassifierLoss(classifier, logit_weight=0.5)
        value = loss(student, teacher, targets=of_labels(torch.tensor([label])))
        assert value.item() == pytest.approx(-math.log(probability) + 0.5 * apart)


@given(seed=seeds, m=counts, c=counts, k=counts, b=weights, soft=st.booleans())
def test_joint_classifier_against_loops(
    seed: int, m: int, c: int, k: int, b: float, soft: bool
) -> None:
    student, teacher = _random(2, m, c, seed=seed)
    classifier = _classifier(c, k, seed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (m,), generator=generator)
    targets = _random(m, k, seed=seed + 9).softmax(1) if soft else torch.eye(k).double()[labels]
    theirs = _logits(classifier, teacher)
    expected = _cross_entropy(theirs, targets.tolist())
    expected += b * _mean_square(_logits(classifier, student), theirs)
    given_labels = targets if soft else labels
    loss = JointClassifierLoss(classifier, b)
    value = loss(student, teacher, targets=of_labels(given_labels))
    assert value.item() == pytest.approx(expected)
    assert torch.equal(value, joint_classifier(student, teacher, given_labels, classifier, b))


@given(seed=seeds)
def test_joint_classifier_s_gradients_by_the_formula(seed: int) -> None:
    """The classifier learns from the labels on the teacher's side and from both sides' logits."""
    student, teacher = _random(2, 4, 3, seed=seed)
    classifier = _classifier(3, 5, seed)
    labels = torch.tensor([0, 3, 3, 1])
    loss = JointClassifierLoss(classifier, logit_weight=2.0)
    loss(student.requires_grad_(), teacher, targets=of_labels(labels)).backward()
    weight, bias = (parameter.detach() for parameter in classifier.parameters())
    error = (teacher @ weight.T + bias).softmax(1) - torch.eye(5).double()[labels]
    difference = student.detach() - teacher
    apart = 2.0 * 2 * difference @ weight.T / (4 * 5)
    torch.testing.assert_close(student.grad, apart @ weight)
    torch.testing.assert_close(classifier.weight.grad, error.T @ teacher / 4 + apart.T @ difference)
    # A bias cancels in the difference of logits.
    torch.testing.assert_close(classifier.bias.grad, error.mean(dim=0))


def test_one_hot_probabilities_are_labels() -> None:
    student, teacher = _random(2, 4, 3)
    loss = JointClassifierLoss(_classifier(3, 5))
    labels = torch.tensor([0, 4, 2, 2])
    hot = torch.eye(5, dtype=torch.float64)[labels]
    torch.testing.assert_close(
        *(loss(student, teacher, targets=of_labels(y)) for y in (labels, hot))
    )


# Both

both = pytest.mark.parametrize("kind", ["srrl", "joint"])


def _loss(kind: str, classifier: nn.Linear, **settings: float) -> tuple[nn.Module, dict]:
    """A loss, and what it takes besides features of four samples."""
    if kind == "srrl":
        return SoftmaxRegressionLoss(classifier, **settings), {}
    targets = of_labels(torch.tensor([0, 1, 1, 0]))
    return JointClassifierLoss(classifier, **settings), dict(targets=targets)


@both
def test_gradient_is_the_derivative(kind: str) -> None:
    loss, extra = _loss(kind, classifier := _classifier(3, 2))
    student, teacher = _random(2, 4, 3)
    inputs = (student.requires_grad_(), teacher.requires_grad_(), *classifier.parameters())
    assert torch.autograd.gradcheck(lambda s, t, *_: loss(s, t, **extra), inputs)


@both
@given(seed=seeds)
def test_order_of_samples_does_not_matter(kind: str, seed: int) -> None:
    loss, extra = _loss(kind, _classifier(3, 2))
    student, teacher = _random(2, 4, 3, seed=seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    reordered = {key: of_labels(value.labels[order]) for key, value in extra.items()}
    torch.testing.assert_close(
        loss(student[order], teacher[order], **reordered), loss(student, teacher, **extra)
    )


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("of_classifier", [torch.float32, torch.float16, torch.float64])
def test_half_precision_is_compared_in_float32(
    kind: str, dtype: torch.dtype, of_classifier: torch.dtype
) -> None:
    classifier = _classifier(3, 2).to(of_classifier)
    loss, extra = _loss(kind, classifier)
    student, teacher = (each.to(dtype) for each in 100 * _random(2, 4, 3))
    value = loss(student.requires_grad_(), teacher, **extra)
    assert value.dtype == torch.float32
    exact, _ = _loss(kind, classifier.to(torch.float64))
    expected = exact(student.double(), teacher.double(), **extra)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    assert student.grad.dtype == dtype
    assert torch.isfinite(student.grad).all()


@both
def test_the_largest_float16_features(kind: str) -> None:
    loss, extra = _loss(kind, _classifier(3, 2).float())
    student = torch.full((4, 3), 65504.0, dtype=torch.float16, requires_grad=True)
    value = loss(student, -student.detach(), **extra)
    assert torch.isfinite(value)
    assert value > 65504


@both
def test_equal_features(kind: str) -> None:
    loss, extra = _loss(kind, classifier := _classifier(3, 2))
    student = _random(4, 3).requires_grad_()
    value = loss(student, student.detach().clone(), **extra)
    value.backward()
    assert not student.grad.any()
    logits = _logits(classifier, student)
    expected = _cross_entropy(logits, [[1, 0], [0, 1], [0, 1], [1, 0]]) if extra else 0
    assert value.item() == pytest.approx(expected)


@both
def test_the_classifier_stays_its_model_s(kind: str) -> None:
    """Neither saved nor trained a second time, nor seen by whoever taps its calls."""
    classifier = _classifier(3, 2)
    calls: list[object] = []
    classifier.register_forward_hook(lambda *args: calls.append(args))
    loss, extra = _loss(kind, classifier)
    loss(*_random(2, 4, 3), **extra)
    assert calls == []
    assert list(loss.parameters()) == []
    assert loss.state_dict() == {}


@both
def test_later_weights_of_the_classifier_count(kind: str) -> None:
    classifier = _classifier(3, 2)
    loss, extra = _loss(kind, classifier)
    student, teacher = _random(2, 4, 3)
    before = loss(student, teacher, **extra)
    with torch.no_grad():
        classifier.weight.mul_(2)
    assert loss(student, teacher, **extra) != before


@both
@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4, 3), (3, 3))])
def test_other_shapes_are_refused(kind: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    loss, extra = _loss(kind, _classifier(3, 2))
    with pytest.raises(ValueError, match="same shape, got"):
        loss(*map(torch.zeros, shapes), **extra)


@pytest.mark.parametrize("cls", [SoftmaxRegressionLoss, JointClassifierLoss])
@pytest.mark.parametrize("classifier", [nn.Conv2d(3, 2, 1), nn.Sequential(nn.Linear(3, 2)), "fc"])
def test_a_classifier_that_is_not_linear(cls: type[nn.Module], classifier: object) -> None:
    kind = type(classifier).__name__
    with pytest.raises(ValueError, match=f"classifier must be a linear layer, got a {kind}"):
        cls(classifier)


@pytest.mark.parametrize("cls", [SoftmaxRegressionLoss, JointClassifierLoss])
def test_a_classifier_of_another_width(cls: type[nn.Module]) -> None:
    cls(nn.Linear(3, 2), num_channels=3)
    with pytest.raises(
        ValueError, match=r"takes 3 channels, the teacher's feature has 8: tap what it classifies"
    ):
        cls(nn.Linear(3, 2), num_channels=8)


def test_a_frozen_joint_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is frozen, .* set the head's freeze_classifier=False"):
        JointClassifierLoss(nn.Linear(3, 2).requires_grad_(False))
    SoftmaxRegressionLoss(nn.Linear(3, 2).requires_grad_(False))
