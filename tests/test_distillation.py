"""The trainer-free core: what is measured, when, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmkd.distillation import CHECKED_ITERATIONS, Distillation, Measured
from mmkd.losses import Loss, Takes
from mmkd.targets import Boxes, Targets
from mmkd.terms import Term, parse_terms


class Student(nn.Module):
    """Levels ``[N, 4, H/2, W/2]`` and ``[N, 6, H/4, W/4]``, and a head on the second."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.drop = nn.Dropout(0.5)
            self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
            self.levels = Levels()
            self.twice = nn.Tanh()
            self.head = nn.Linear(6, 2)
            self.spare = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        first = self.drop(self.norm(self.first(images)))
        levels = self.levels(first, self.second(self.twice(self.twice(first))))
        return self.head(levels["deep"].mean(dim=(2, 3)))


class Levels(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        return dict(shallow=first, deep=second)


class FixedTeacher:
    """Features of 5 and 7 channels, computed from the images without a network."""

    state = None
    own_taps = ()

    def __init__(self, size: int = 16) -> None:
        self.calls: list[tuple[Tensor, Any]] = []
        self.probed = self._features(torch.zeros(1, 3, size, size))
        self.change = lambda feature: feature
        with torch.random.fork_rng():
            self.classifier = nn.Linear(7, 2).requires_grad_(False)

    def module(self, path: str) -> nn.Module:
        if path != "classifier":
            raise ValueError(f"no module {path!r}")
        return self.classifier

    def _features(self, images: Tensor) -> dict[str, Any]:
        pooled = nn.functional.avg_pool2d(images, 4)
        seven = torch.cat([pooled, pooled**2, pooled.sum(dim=1, keepdim=True).sin()], dim=1)
        return dict(map=seven, pair=(seven[:, :5], seven))

    def advance(self, iteration: int) -> None:
        pass

    def features(
        self, inputs: Tensor, context: Any = None, student: Any = None
    ) -> Mapping[str, Any]:
        self.calls.append((inputs, context))
        features = self._features(inputs)
        return features | dict(map=self.change(features["map"]))


def images(seed: int = 0, batch: int = 4) -> Tensor:
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def terms_of(sources: tuple[str, ...] = ("teacher",), **terms: Any) -> list[Term]:
    given = {name: dict(dict(student="second", teacher="map"), **t) for name, t in terms.items()}
    return parse_terms(given, sources)


def build(
    terms: list[Term], student: Student | None = None, seed: int = 0, **teachers: FixedTeacher
) -> tuple[Distillation, Student]:
    """Attached to its student."""
    student = student or Student()
    distillation = Distillation(
        "Owner",
        student,
        terms,
        teachers or {"teacher": FixedTeacher()},
        lambda: student(torch.zeros(1, 3, 16, 16)),
        seed=seed,
    )
    distillation.attach()
    return distillation, student


def step(
    distillation: Distillation, student: Student, iteration: int = 0, length: int = 10, **named: Any
) -> dict[str, Measured]:
    """One iteration as adapters run it."""
    batch = named.pop("batch", images())
    distillation.begin(iteration, length)
    distillation.arm()
    student(batch)
    return distillation.measure(batch, **named)


# Values


def float64(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def samples(feature: np.ndarray) -> np.ndarray:
    """``[N, C, H, W]`` to ``[N H W, C]``."""
    images, _, height, width = feature.shape
    return np.stack([feature[n, :, i, j] for n, i, j in np.ndindex(images, height, width)])


def linear_norm_logsum(distillation: Distillation, term: str, student: Tensor, t: Tensor) -> float:
    """The paper's formula in float64: linear projector, BatchNorm (eps 1e-4), log sum |.|^4."""
    linear = distillation.distillers[term].projector.linear
    s = samples(float64(student)) @ float64(linear.weight).T + float64(linear.bias)
    s, t = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-4) for x in (s, samples(float64(t))))
    return math.log((np.abs(s - t) ** 4).sum() + 1e-12)


def test_a_term_is_the_papers_formula_times_weight_and_factor() -> None:
    teacher = FixedTeacher()
    schedule = dict(ramp=2)
    terms = terms_of(one=dict(weight=3.0, schedule=schedule), other=dict(weight=0.5))
    distillation, student = build(terms, teacher=teacher)
    student.drop.eval()
    measured = step(distillation, student, iteration=5)
    found = student.second(student.twice(student.twice(student.norm(student.first(images())))))
    theirs = teacher._features(images())["map"]
    expected = {t.name: linear_norm_logsum(distillation, t.name, found, theirs) for t in terms}
    assert expected["one"] != pytest.approx(expected["other"], abs=1e-3)
    for name, factor in dict(one=3.0 * 0.25, other=0.5).items():
        assert measured[name].distance.item() == pytest.approx(expected[name], rel=1e-5)
        assert measured[name].weighted.item() == pytest.approx(factor * expected[name], rel=1e-5)


def test_the_gradient_is_that_of_the_weighted_distance() -> None:
    distillation, student = build(terms_of(one=dict(weight=3.0, schedule=dict(ramp=2))))
    (one,) = step(distillation, student, iteration=5).values()
    weights = [student.first.weight, *distillation.distillers.parameters()]
    plain = torch.autograd.grad(one.distance, weights, retain_graph=True)
    weighted = torch.autograd.grad(one.weighted, weights)
    assert all(gradient.any() for gradient in plain[:2])
    for ours, theirs in zip(weighted, plain, strict=True):
        torch.testing.assert_close(ours, 0.75 * theirs)


def test_levels_are_selected_on_both_sides() -> None:
    terms = terms_of(
        deep=dict(student="levels", teacher="pair"),
        shallow=dict(student="levels", student_level="shallow", teacher="pair", teacher_level=0),
    )
    distillation, student = build(terms)
    student.drop.eval()
    channels = {name: (d.student_channels, d.teacher_channels) for name, d in built(distillation)}
    assert channels == dict(deep=(6, 7), shallow=(4, 5))
    measured = step(distillation, student)
    first = student.norm(student.first(images()))
    theirs = FixedTeacher()._features(images())["pair"][0]
    expected = distillation.distiller(terms[1]).distance(first, theirs)
    torch.testing.assert_close(measured["shallow"].distance, expected)
    assert list(measured) == ["deep", "shallow"]


def test_tokens_are_laid_out_by_the_size_of_the_batch() -> None:
    """64 tokens of 16 x 64 pixels are 4 x 16, not 8 x 8."""
    wide = torch.rand(2, 3, 16, 64, generator=torch.Generator().manual_seed(0))
    found = []
    for change in (lambda f: f, lambda f: f.flatten(2).transpose(1, 2)):
        teacher = FixedTeacher()
        distillation, student = build(terms_of(one=dict(student="first")), teacher=teacher)
        teacher.change = change
        student.drop.eval()
        found.append(step(distillation, student, batch=wide)["one"].distance)
    assert torch.equal(*found)


def test_a_feature_that_is_overwritten_in_place() -> None:
    """Activations of YOLO and ResNet work in place, on what BatchNorm has left."""
    student = Student()
    student.drop = nn.ReLU(inplace=True)
    with pytest.raises(RuntimeError, match="Owner student: what the module 'norm' returned"):
        step(build(terms_of(one=dict(student="norm")), student)[0], student)


def built(distillation: Distillation) -> Any:
    return distillation.distillers.named_children()


def test_channels_that_are_given_are_not_measured() -> None:
    terms = terms_of(one=dict(teacher_channels=9))
    distillation, student = build(terms)
    assert distillation.distiller(terms[0]).teacher_channels == 9
    with pytest.raises(ValueError, match=r"Owner terms\.one: expected a teacher feature of 9 chan"):
        step(distillation, student)


# The projectors' first weights


def test_every_term_draws_from_a_seed_of_its_own(untouched_random_state: None) -> None:
    def weights(seed: int) -> list[Tensor]:
        distillation, _ = build(terms_of(one={}, two={}), seed=seed)
        return [distillation.distillers[n].projector.linear.weight for n in ("one", "two")]

    one, two = weights(5)
    assert not torch.equal(one, two)
    assert all(map(torch.equal, weights(5), (one, two)))
    assert torch.equal(weights(6)[0], two)


# When


@pytest.mark.parametrize(
    ("iteration", "on"),
    [
        (0, dict(always=1.0)),
        (9, dict(always=1.0)),
        (10, dict(always=1.0, middle=1.0)),
        (15, dict(always=1.0, middle=1.0, ramped=0.25)),
        (19, dict(always=1.0, middle=1.0, ramped=0.45)),
        (20, dict(always=1.0, ramped=0.5)),
        (30, dict(always=1.0, ramped=1.0)),
        (99, dict(always=1.0, ramped=1.0)),
    ],
)
def test_factors(iteration: int, on: dict[str, float]) -> None:
    distillation, student = build(
        terms_of(
            always={},
            never=dict(weight=0),
            middle=dict(schedule=dict(begin=1, end=2)),
            ramped=dict(schedule=dict(begin=1, ramp=2)),
        )
    )
    measured = step(distillation, student, iteration)
    expected = {name: pytest.approx(factor) for name, factor in on.items()}
    assert distillation.factors == expected
    ratios = {name: (m.weighted / m.distance).item() for name, m in measured.items()}
    assert ratios == expected


def test_nothing_runs_while_every_term_is_off() -> None:
    teacher = FixedTeacher()
    distillation, student = build(terms_of(one=dict(schedule=dict(begin=1))), teacher=teacher)
    distillation.begin(9, 10)
    distillation.arm()
    student(images())
    assert (distillation.factors, distillation.fired, teacher.calls) == ({}, False, [])
    distillation.check_fired("never raised")
    assert step(distillation, student, 10).keys() == {"one"}
    assert len(teacher.calls) == 1


def test_each_teacher_that_is_needed_runs_once() -> None:
    teachers = dict(a=FixedTeacher(), b=FixedTeacher())
    terms = terms_of(
        ("a", "b"),
        one=dict(source="a"),
        two=dict(source="a", teacher="pair"),
        three=dict(source="b", schedule=dict(begin=1)),
    )
    distillation, student = build(terms, **teachers)
    batch, context = images(seed=3), object()
    step(distillation, student, batch=batch, context=context)
    assert [len(each.calls) for each in teachers.values()] == [1, 0]
    assert teachers["a"].calls[0][0] is batch
    assert teachers["a"].calls[0][1] is context
    step(distillation, student, iteration=10, batch=batch)
    assert [len(each.calls) for each in teachers.values()] == [2, 1]


def test_the_teachers_alone_are_timed() -> None:
    teacher = FixedTeacher()
    distillation, student = build(terms_of(one={}, two={}), teacher=teacher)
    calls_at: list[int] = []

    @contextmanager
    def timing() -> Iterator[None]:
        calls_at.append(len(teacher.calls))
        yield
        calls_at.append(len(teacher.calls))

    step(distillation, student, timing=timing)
    assert calls_at == [0, 1]


# The look at the student


def test_the_probe_leaves_modes_statistics_and_random_state(untouched_random_state: None) -> None:
    student = Student()
    student.drop.eval()
    student.head.requires_grad_(False)
    modes = {name: module.training for name, module in student.named_modules()}
    before = {name: value.clone() for name, value in student.state_dict().items()}
    ran: list[str] = []
    for name in ("second", "head"):
        student.get_submodule(name).register_forward_pre_hook(
            lambda *_, name=name: ran.append(name)
        )
    distillation, _ = build(terms_of(one={}), student)
    assert set(modes.values()) == {True, False}
    assert {name: module.training for name, module in student.named_modules()} == modes
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    # It ends at the deepest tap.
    assert ran == ["second"]
    distillation.detach()
    assert hooks_of(student) == ["second", "head"]


def test_a_probe_that_fails_leaves_the_student_alone() -> None:
    student = Student()
    student.drop.eval()

    def fail() -> None:
        raise RuntimeError("no such shape")

    with pytest.raises(RuntimeError, match="Owner student: no such shape"):
        Distillation("Owner", student, terms_of(one={}), {"teacher": FixedTeacher()}, fail)
    assert student.training and not student.drop.training
    assert hooks_of(student) == []


def hooks_of(model: nn.Module) -> list[str]:
    modules = model.named_modules()
    return [name for name, m in modules if m._forward_hooks or m._forward_pre_hooks]


# Classifiers and labels


SRRL = dict(loss=dict(type="mmkd.SoftmaxRegressionLoss"), teacher_classifier="classifier")
JOINT = dict(
    loss=dict(type="mmkd.JointClassifierLoss"),
    student="head_input",
    student_classifier="classifier",
    view="global",
)


def test_a_classifier_of_the_teacher_s() -> None:
    teacher = FixedTeacher()
    term = dict(**SRRL, normalizer=dict(type="mmkd.IdentityNormalizer"))
    distillation, student = build(terms_of(one=term), teacher=teacher)
    student.drop.eval()
    found = step(distillation, student)["one"].distance.item()
    s = student.second(student.twice(student.twice(student.norm(student.first(images())))))
    linear = distillation.distillers["one"].projector.linear
    s = samples(float64(s)) @ float64(linear.weight).T + float64(linear.bias)
    t = samples(float64(teacher._features(images())["map"]))
    logits = (s - t) @ float64(teacher.classifier.weight).T
    assert found == pytest.approx(((s - t) ** 2).mean() + (logits**2).mean(), rel=1e-5)
    assert teacher.classifier.weight.grad is None


class Classifying(Student):
    """Its classifier takes the teacher's channels."""

    def __init__(self) -> None:
        super().__init__()
        self.head_input = nn.Conv2d(6, 7, 1)
        self.classifier = nn.Linear(7, 2)

    def forward(self, images: Tensor) -> Tensor:
        shared = self.head_input(self.second(self.first(images)))
        return self.classifier(shared.mean(dim=(2, 3)))


def test_labels_are_asked_for_by_losses_that_take_them_alone() -> None:
    asked: list[int] = []

    def labels() -> Tensor:
        asked.append(1)
        return torch.tensor([0, 1, 1, 0])

    both = terms_of(one={**JOINT}, other=dict(student="head_input"))
    distillation, student = build(both, Classifying())
    measured = step(distillation, student, targets=Targets((16, 16), labels=labels))
    assert len(asked) == 1
    gradient = torch.autograd.grad(measured["one"].weighted, student.classifier.weight)[0]
    assert gradient.any()
    distillation, student = build(both[1:], Classifying())
    step(distillation, student, targets=Targets((16, 16), labels=labels))
    assert len(asked) == 1


def test_labels_that_are_missing() -> None:
    distillation, student = build(terms_of(one=JOINT), Classifying())
    with pytest.raises(
        ValueError, match=r"Owner terms\.one: JointClassifierLoss needs what the images show"
    ):
        step(distillation, student)


def test_labels_that_cannot_be_had() -> None:
    def labels() -> Tensor:
        raise ValueError("no labels here")

    distillation, student = build(terms_of(one=JOINT), Classifying())
    with pytest.raises(ValueError, match=r"Owner terms\.one: no labels here"):
        step(distillation, student, targets=Targets((16, 16), labels=labels))


def test_labels_of_images_that_have_no_class() -> None:
    distillation, student = build(terms_of(one=JOINT), Classifying())
    labels = torch.tensor([0, 1, -100, 0])
    with pytest.raises(ValueError, match=r"Owner terms\.one: JointClassifierLoss .* label -100"):
        step(distillation, student, targets=Targets((16, 16), labels=labels))


# The teacher's scores


class ScoringTeacher(FixedTeacher):
    """Logits of three classes on 8 x 8, 4 x 4 and 2 x 2 cells, by two modules."""

    def _features(self, images: Tensor) -> dict[str, Any]:
        logits = [nn.functional.avg_pool2d(images, 16 // n) * 4 - 2 for n in (8, 4, 2)]
        objects = [1 - each[:, :1] for each in logits]
        return dict(super()._features(images), finer=logits[0], others=logits[1:], objects=objects)


@pytest.mark.parametrize("heads", [["classes"], ["classes", "objects"]])
@pytest.mark.parametrize(("student", "level"), [("first", 1), ("second", 1), ("head", 2)])
def test_scores_are_those_of_the_teacher_s_grid(student: str, level: int, heads: list[str]) -> None:
    """The feature's own of the teacher, whatever the student's; of what is no map the nearest. Of a
    head that tells objects apart from classes the product of both."""
    teacher = ScoringTeacher()
    feature = "map" if level == 1 else "vector"
    features = teacher._features
    teacher._features = lambda images: dict(
        features(images), vector=features(images)["map"].mean(dim=(2, 3))
    )
    teacher.probed = teacher._features(torch.zeros(1, 3, 16, 16))
    loss = Scored()
    [term] = terms_of(one=dict(student=student, teacher=feature, loss=loss))
    paths = dict(classes=("finer", "others"), objects=("objects",))
    [term] = [term.replace(scores=tuple(paths[head] for head in heads))]
    step(*build([term], teacher=teacher))
    found = teacher._features(images())
    scores = [each.sigmoid().amax(1, True) for each in (found["finer"], *found["others"])]
    if "objects" in heads:
        scores = [each * own.sigmoid() for each, own in zip(scores, found["objects"], strict=True)]
    torch.testing.assert_close(loss.seen.scores, scores[level])
    torch.testing.assert_close(loss.seen.total_score, sum(each.sum() for each in scores))


class Scored(Loss):
    """Keeps what it is shown."""

    takes = Takes(targets=("scores",))

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        self.seen = targets
        return (student - teacher).square().mean()


# A weight that is too large


@pytest.mark.parametrize(
    ("weight", "scale", "said"),
    [
        (1e38, 1.0, r"the weight 1e\+38, the distance [\d.]+ becomes inf: give a smaller weight"),
        (3e37, 1e-3, r"the weight 3e\+37, the gradient at the student's feature is not finite"),
    ],
)
def test_a_weight_that_overflows(weight: float, scale: float, said: str) -> None:
    """First the weighted distance; then, of a feature scaled up, the gradient alone."""
    distillation, student = build(terms_of(one=dict(weight=weight)))
    with torch.no_grad():
        distillation.distillers["one"].projector.linear.weight /= scale
    with pytest.raises(
        RuntimeError, match=rf"^Owner terms\.one\.weight: in iteration 7, with {said}"
    ):
        step(distillation, student, iteration=7)


def test_looking_at_the_gradient_leaves_it_to_the_training() -> None:
    found = []
    for checked in (True, False):
        distillation, student = build(terms_of(one=dict(weight=2.0)))
        student.drop.eval()
        if not checked:
            distillation._checked["one"] = CHECKED_ITERATIONS
        step(distillation, student)["one"].weighted.backward()
        found.append([p.grad for p in (student.first.weight, *distillation.parameters)])
    assert all(map(torch.equal, *found))


# A batch of a single image


@pytest.mark.parametrize(
    ("term", "is_refused"),
    [
        (dict(view="global"), True),
        (dict(view="dense"), False),
        (dict(view="global", weight=0), False),
        (dict(view="global", normalizer=dict(type="mmkd.L2Normalizer")), False),
        (dict(student="head", teacher="vector"), True),
    ],
)
def test_terms_on_two_images(term: dict, is_refused: bool) -> None:
    """Those that fail on a single one."""
    teacher = FixedTeacher()
    features = teacher._features
    teacher._features = lambda images: dict(
        features(images), vector=features(images)["map"].mean(dim=(2, 3))
    )
    teacher.probed = teacher._features(torch.zeros(1, 3, 16, 16))
    distillation, student = build(terms_of(one=term), teacher=teacher)
    assert [each.name for each in distillation.terms_on_two_images] == ["one"] * is_refused
    if is_refused:
        with pytest.raises(ValueError, match="BatchNormalizer needs 2 samples or more"):
            step(distillation, student, batch=images(batch=1))
    elif term.get("weight") != 0:
        step(distillation, student, batch=images(batch=1))


# Attached and detached


def test_attaching_again_taps_once_and_detaching_leaves_nothing() -> None:
    distillation, student = build(terms_of(one={}, two=dict(student="first")))
    distillation.attach()
    hooks = [len(student.get_submodule(name)._forward_hooks) for name in ("first", "second")]
    assert hooks == [1, 1]
    assert step(distillation, student).keys() == {"one", "two"}
    distillation.detach()
    distillation.detach()
    assert hooks_of(student) == []
    distillation.begin(0, 10)
    distillation.arm()
    assert not distillation.fired


def test_a_forward_pass_that_failed_is_forgotten() -> None:
    distillation, student = build(terms_of(one={}))
    distillation.begin(0, 10)
    distillation.arm()
    student(images())
    distillation.release()
    assert not distillation.fired
    with pytest.raises(RuntimeError, match="'second' did not run"):
        distillation.measure(images())
    assert step(distillation, student)["one"].distance.isfinite()


def test_the_student_is_recorded_in_armed_forward_passes_alone() -> None:
    distillation, student = build(terms_of(one={}))
    student.drop.eval()
    student.norm.eval()
    alone = step(distillation, student)["one"].distance
    student(images(seed=9))
    with_others = step(distillation, student)["one"].distance
    student(images(seed=9))
    assert torch.equal(alone, with_others)


# Errors before training


@pytest.mark.parametrize(
    ("term", "kind", "parts"),
    [
        (
            dict(student="secnd"),
            ValueError,
            ("Owner terms.one.student", "Student has no module 'secnd'", "Close matches: second"),
        ),
        (
            dict(student="levels", student_level="mid"),
            ValueError,
            ("Owner terms.one.student", "level 'mid'", "'shallow', 'deep'"),
        ),
        (
            dict(student_level=2),
            ValueError,
            ("Owner terms.one.student", "level 2", "single tensor", "use -1"),
        ),
        (
            dict(teacher="pair", teacher_level=2),
            ValueError,
            ("Owner terms.one.teacher", "level 2 was asked of 2 outputs"),
        ),
        (
            dict(SRRL, teacher_classifier="fc"),
            ValueError,
            ("Owner terms.one.teacher_classifier", "no module 'fc'"),
        ),
        (
            dict(JOINT, student="second", student_classifier="hed"),
            ValueError,
            ("Owner terms.one.student_classifier", "no module 'hed'", "Close matches: head"),
        ),
        (
            dict(JOINT, student="second", student_classifier="first"),
            ValueError,
            ("Owner terms.one", "must be a linear layer, got a Conv2d"),
        ),
        (
            dict(JOINT, student="second", student_classifier="head"),
            ValueError,
            ("Owner terms.one", "takes 6 channels, the teacher's feature has 7"),
        ),
        (
            dict(teacher_classifier="classifier"),
            ValueError,
            ("Owner terms.one", "teacher_classifier is given, but LogSumLoss takes none"),
        ),
        (dict(student="spare"), RuntimeError, ("Owner student", "'spare' did not run")),
        (dict(weight=-1), ValueError, ("terms.one.weight", "must be 0 or more, got -1")),
        (
            dict(student="head", loss=dict(type="mmkd.ATLoss")),
            ValueError,
            ("Owner terms.one", "ATLoss compares maps, got (1, 2)", "returns [N, C, H, W]"),
        ),
        (
            dict(student=["second"], teacher=["map"], loss=dict(type="mmkd.FSPLoss")),
            ValueError,
            ("Owner terms.one", "FSPLoss takes 2 levels or more, got 1"),
        ),
        (
            dict(student="head", teacher="map", type="mmkd.FTDistiller", paraphrase=1),
            ValueError,
            ("Owner terms.one", "FTDistiller compares maps, got (1, 2)"),
        ),
        (
            dict(loss=dict(type="mmkd.LogSumLos")),
            ValueError,
            ("Owner terms.one", "'mmkd.LogSumLos'"),
        ),
    ],
)
def test_what_does_not_fit(term: dict, kind: type[Exception], parts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as error:
        build(terms_of(one=term))
    missing = [part for part in parts if part not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"
    assert isinstance(error.value, kind)
    assert error.value.setting == parts[0]


# Errors in the first iterations


def test_a_term_that_did_not_fire() -> None:
    distillation, _ = build(terms_of(one={}, off=dict(weight=0)))
    distillation.begin(0, 10)
    with pytest.raises(RuntimeError, match=r"Owner: the terms \['one'\] did not fire: no loss\(\)"):
        distillation.check_fired("no loss()")
    distillation.arm()
    distillation.check_fired("never raised")


def test_a_module_that_stopped_running() -> None:
    distillation, _ = build(terms_of(one={}))
    distillation.begin(0, 10)
    distillation.arm()
    with pytest.raises(RuntimeError, match="Owner student: the module 'second' did not run"):
        distillation.measure(images())


def test_a_module_that_runs_twice() -> None:
    distillation, student = build(terms_of(one=dict(student="twice")))
    with pytest.raises(RuntimeError, match="Owner student: the module 'twice' ran 2 times"):
        step(distillation, student)


def test_a_frozen_student() -> None:
    distillation, student = build(terms_of(one={}))
    student.requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"Owner terms\.one: .*'second' has no gradient.*frozen"):
        step(distillation, student)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_teacher_that_is_not_finite(value: float) -> None:
    teacher = FixedTeacher()
    distillation, student = build(terms_of(one={}), teacher=teacher)
    teacher.change = lambda f: (
        f if isinstance(f, tuple) else f.index_fill(0, torch.tensor(2), value)
    )
    with pytest.raises(RuntimeError, match=r"Owner terms\.one: the teacher's feature 'map' holds"):
        step(distillation, student)


def test_a_student_that_diverged() -> None:
    distillation, student = build(terms_of(one={}))
    student.second.bias.data[0] = torch.inf
    with pytest.raises(RuntimeError, match=r"Owner terms\.one: the distance is nan: check"):
        step(distillation, student)


class Zero(nn.Module):
    """A distance of 0 but in the calls that are listed."""

    def __init__(self, *other: int) -> None:
        super().__init__()
        self.other, self.calls = other, 0

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        self.calls += 1
        return student.sum() * 0 + (self.calls in self.other)


def test_a_distance_that_stays_at_zero_is_found_in_the_tenth_iteration() -> None:
    distillation, student = build(terms_of(one=dict(loss=Zero())))
    for iteration in range(9):
        step(distillation, student, iteration)
    with pytest.raises(RuntimeError, match=r"Owner terms\.one: .*stayed at 0 for 10 iterations"):
        step(distillation, student, 9)


@pytest.mark.parametrize("nonzero", [1, 10])
def test_a_distance_that_was_not_zero_once_is_let_pass(nonzero: int) -> None:
    distillation, student = build(terms_of(one=dict(loss=Zero(nonzero))))
    values = [step(distillation, student, i)["one"].distance.item() for i in range(12)]
    assert [i + 1 for i, value in enumerate(values) if value] == [nonzero]


def objects(*counts: int) -> Targets:
    """Images of 16 x 16 pixels with so many boxes each."""
    boxes = [Boxes(torch.tensor([[2.0, 2, 9, 9]]).repeat(k, 1), torch.zeros(k).long())
             for k in counts]  # fmt: skip
    return Targets((16, 16), boxes=boxes)


def test_iterations_without_a_box_say_nothing_of_a_loss_that_is_guided_by_boxes() -> None:
    distillation, student = build(terms_of(one=dict(loss=dict(type="mmkd.FGFILoss"))))
    for iteration in range(12):
        measured = step(distillation, student, iteration, targets=objects(0, 0, 0, 0))
        assert measured["one"].distance.item() == 0
    assert step(distillation, student, 12, targets=objects(0, 1, 0, 0))["one"].distance > 0


def test_iterations_with_a_box_are_counted_among_those_without() -> None:
    """Student and teacher give zeros; every third batch shows a box."""
    teacher = FixedTeacher()
    distillation, student = build(
        terms_of(one=dict(loss=dict(type="mmkd.FGFILoss"))), teacher=teacher
    )
    teacher.change = torch.zeros_like
    for parameter in distillation.parameters:
        parameter.data.zero_()
    for iteration in range(29):
        counts = [int(iteration % 3 == 2)] * 4
        step(distillation, student, iteration, targets=objects(*counts))
    with pytest.raises(RuntimeError, match=r"Owner terms\.one: .*stayed at 0 for 10 iterations"):
        step(distillation, student, 29, targets=objects(1, 0, 0, 0))


def test_iterations_in_which_a_term_is_off_are_not_counted() -> None:
    terms = terms_of(on={}, late=dict(loss=Zero(), schedule=dict(begin=2, by_epoch=True)))
    distillation, student = build(terms)
    for iteration in range(20 + 9):
        step(distillation, student, iteration)
    with pytest.raises(RuntimeError, match=r"Owner terms\.late: .*stayed at 0"):
        step(distillation, student, 29)


def test_later_values_are_not_looked_at() -> None:
    """Looking would wait for the device in every step."""
    teacher = FixedTeacher()
    distillation, student = build(terms_of(one={}), teacher=teacher)
    for iteration in range(CHECKED_ITERATIONS):
        assert step(distillation, student, iteration)["one"].distance.isfinite()
    teacher.change = lambda feature: feature * torch.nan
    assert step(distillation, student, CHECKED_ITERATIONS)["one"].distance.isnan()
