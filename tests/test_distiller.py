from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

import mmkd
from mmkd.distiller import Distiller, FeatureDistiller
from mmkd.losses import (
    JointClassifierLoss,
    L2Loss,
    LogSumLoss,
    Loss,
    SoftmaxRegressionLoss,
    Takes,
)
from mmkd.normalizers import BatchNormalizer, IdentityNormalizer
from mmkd.projectors import ConvConnector, IdentityProjector, LinearProjector
from mmkd.registry import MODELS, build_part
from mmkd.targets import Targets

PROJECTORS = ["LinearProjector", "MLPProjector", "ProjectorEnsemble", "ConvConnector"]
NORMALIZERS = ["BatchNormalizer", "L2Normalizer", "LayerNormalizer", "IdentityNormalizer"]
LOSSES = ["LogSumLoss", "CorrelationLogSumLoss", "DirectionAlignmentLoss", "L2Loss", "MSELoss"]


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _maps() -> tuple[Tensor, Tensor]:
    return _random(2, 6, 4, 4), _random(2, 8, 2, 4, seed=1)


def _config(kind: str) -> dict:
    return dict(type=f"mmkd.{kind}")


# Values


def test_the_default_recipe_step_by_step() -> None:
    student, teacher = (feature.double() for feature in _maps())
    distiller = FeatureDistiller(6, 8, weight=3.0).double()
    linear = distiller.projector.linear
    total = 0.0
    # The teacher's map has half the height: pairs of the student's rows are averaged.
    pooled = (student[:, :, 0::2] + student[:, :, 1::2]) / 2
    samples = [(n, i, j) for n in range(2) for i in range(2) for j in range(4)]
    ours = torch.stack([linear.weight @ pooled[n, :, i, j] + linear.bias for n, i, j in samples])
    theirs = torch.stack([teacher[n, :, i, j] for n, i, j in samples])
    for s, t in zip(ours.unbind(1), theirs.unbind(1), strict=True):
        s, t = ((x - x.mean()) / (x.var(unbiased=False) + 1e-4).sqrt() for x in (s, t))
        total += sum(float(d) ** 4 for d in s - t)
    assert distiller.distance(student, teacher).item() == pytest.approx(math.log(total + 1e-12))
    assert distiller(student, teacher).item() == pytest.approx(3 * math.log(total + 1e-12))


def test_value_by_hand() -> None:
    distiller = FeatureDistiller(
        projector=nn.Identity(), normalizer=IdentityNormalizer(), loss=L2Loss(), weight=2
    )
    value = distiller(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]))
    assert value.item() == pytest.approx(2 * (1 + 4) / 2)


def test_the_global_view_pools() -> None:
    student, teacher = _random(4, 6, 3, 3), _random(4, 8, seed=1)
    distiller = FeatureDistiller(6, 8, view="global")
    pooled = torch.stack([each.flatten(1).mean(dim=1) for each in student])
    torch.testing.assert_close(distiller(student, teacher), distiller(pooled, teacher))


def test_a_connector_sees_the_map_before_it_is_viewed() -> None:
    student, teacher = _maps()
    distiller = FeatureDistiller(6, 8, projector=_config("ConvConnector"), loss=L2Loss())
    projected = distiller.projector(student)
    pooled = (projected[:, :, 0::2] + projected[:, :, 1::2]) / 2
    ours, theirs = (f.permute(0, 2, 3, 1).reshape(-1, 8) for f in (pooled, teacher))
    ours, theirs = (batch_norm(x, None, None, training=True, eps=1e-4) for x in (ours, theirs))
    torch.testing.assert_close(distiller(student, teacher), L2Loss()(ours, theirs))


@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("view", ["dense", "global"])
def test_parts_combine(projector: str, normalizer: str, loss: str, view: str) -> None:
    student, teacher = _maps()
    distiller = FeatureDistiller(6, 8, *map(_config, (projector, normalizer, loss)), view=view)
    value = distiller(student.requires_grad_(), teacher)
    value.backward()
    assert value.shape == ()
    assert torch.isfinite(value)
    for tensor in (student, *distiller.parameters()):
        assert torch.isfinite(tensor.grad).all()
    assert student.grad.any()


# Gradients


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = (feature.requires_grad_() for feature in _maps())
    distiller = FeatureDistiller(6, 8)
    distiller(student, 2 * teacher).backward()
    assert teacher.grad is None
    assert student.grad.any()
    assert all(p.grad.any() for p in [distiller.projector.linear.weight])


def test_gradient_is_the_derivative() -> None:
    distiller = FeatureDistiller(3, 4, weight=0.5).double()
    student, teacher = _random(2, 3, 2, 2).double(), _random(2, 4, 2, 3, seed=1).double()
    inputs = (student.requires_grad_(), *distiller.parameters())
    assert torch.autograd.gradcheck(lambda s, *_: distiller(s, teacher), inputs)


def test_steps_against_the_gradient_lower_the_loss() -> None:
    student, teacher = (feature.double() for feature in _maps())
    distiller = FeatureDistiller(6, 8).double()
    values = []
    for _ in range(5):
        values.append(distiller(student, teacher))
        gradients = torch.autograd.grad(values[-1], list(distiller.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(distiller.parameters(), gradients, strict=True):
                parameter -= 1e-3 * gradient
    assert values == sorted(values, reverse=True)


def test_order_of_images_does_not_matter() -> None:
    student, teacher = (feature.double() for feature in _maps())
    distiller = FeatureDistiller(6, 8).double()
    torch.testing.assert_close(
        distiller(student.flip(0), teacher.flip(0)), distiller(student, teacher)
    )


def test_weight_scales_value_and_gradient() -> None:
    student, teacher = _maps()
    gradients = {}
    for weight in (0, 1, 2.5):
        distiller = FeatureDistiller(6, 8, weight=weight)
        student.grad = None
        value = distiller(student.requires_grad_(), teacher)
        value.backward()
        gradients[weight] = torch.cat([value.detach()[None], student.grad.flatten()])
    assert not gradients[0].any()
    torch.testing.assert_close(gradients[2.5], 2.5 * gradients[1])


# Precision


@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("loss", LOSSES)
def test_under_autocast_the_distance_is_computed_in_float32(
    projector: str, normalizer: str, loss: str
) -> None:
    student, teacher = (feature.bfloat16() for feature in _maps())
    distiller = FeatureDistiller(6, 8, *map(_config, (projector, normalizer, loss)))
    seen: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.extend(args)
        assert not torch.is_autocast_enabled("cpu")

    distiller.loss.register_forward_pre_hook(record)
    with torch.autocast("cpu", torch.bfloat16):
        value = distiller(student.requires_grad_(), teacher)
    assert value.dtype == torch.float32
    assert [x.dtype for x in seen] == [torch.float32] * 2
    assert torch.equal(value, distiller.loss(*(x.detach() for x in seen)))
    value.backward()
    assert student.grad.dtype == torch.bfloat16
    for tensor in (student, *distiller.parameters()):
        assert torch.isfinite(tensor.grad).all()


def test_autocast_is_left_as_it_was() -> None:
    distiller = FeatureDistiller(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        distiller(*_maps())
        assert torch.is_autocast_enabled("cpu")


# Random states


@pytest.mark.parametrize("projector", PROJECTORS)
def test_global_random_states_are_untouched(projector: str, untouched_random_state: None) -> None:
    distiller = FeatureDistiller(6, 8, projector=_config(projector))
    distiller(*_maps()).backward()


@pytest.mark.parametrize("projector", PROJECTORS)
def test_the_seed_decides_the_weights(projector: str) -> None:
    def weights(seed: int) -> Tensor:
        distiller = FeatureDistiller(6, 8, projector=_config(projector), seed=seed)
        return nn.utils.parameters_to_vector(distiller.parameters())

    torch.manual_seed(1)
    first = weights(5)
    torch.manual_seed(2)
    assert torch.equal(first, weights(5))
    assert not torch.equal(first, weights(6))


# Construction


def test_the_default_parts() -> None:
    distiller = FeatureDistiller(6, 8)
    assert isinstance(distiller.projector, LinearProjector)
    assert isinstance(distiller.normalizer, BatchNormalizer)
    assert isinstance(distiller.loss, LogSumLoss)
    assert (distiller.view, distiller.weight) == ("dense", 1.0)
    assert (distiller.normalizer.eps, distiller.loss.alpha) == (1e-4, 4.0)
    assert sorted(distiller.state_dict()) == ["projector.linear.bias", "projector.linear.weight"]


def test_built_parts_are_taken_as_they_are() -> None:
    parts = ConvConnector(6, 8), IdentityNormalizer(), L2Loss()
    distiller = FeatureDistiller(None, None, *parts)
    assert (distiller.projector, distiller.normalizer, distiller.loss) == parts
    distiller(*_maps())


def test_a_config_may_say_more_than_is_inferred() -> None:
    distiller = FeatureDistiller(
        6,
        8,
        projector=dict(type="mmkd.MLPProjector", hidden_channels=5, out_channels=3),
        normalizer=dict(type="mmkd.BatchNormalizer", num_channels=3),
    )
    assert [layer.out_features for layer in distiller.projector.layers] == [5, 3]
    assert distiller.normalizer.num_channels == 3


def test_a_distiller_is_built_from_its_config() -> None:
    distiller = MODELS.build(
        dict(type="mmkd.FeatureDistiller", student_channels=6, teacher_channels=8, weight=2.0)
    )
    assert type(distiller) is FeatureDistiller is mmkd.FeatureDistiller
    distiller(*_maps())


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            dict(view="pooled"),
            ValueError,
            "view must be one of .*'map'.*, got 'pool",
        ),
        (dict(weight=-1), ValueError, "weight must be 0 or more, got -1"),
        (dict(weight=math.nan), ValueError, "weight must be 0 or more, got nan"),
        (dict(weight=math.inf), ValueError, "weight must be finite in float32, got inf"),
        (dict(weight=1e39), ValueError, r"weight must be finite in float32, got 1e\+39"),
        (dict(student_channels=None), ValueError, "LinearProjector needs in_channels: give it"),
        (dict(teacher_channels=None), ValueError, "LinearProjector needs out_channels"),
        (
            dict(teacher_channels=None, projector=nn.Identity()),
            ValueError,
            "BatchNormalizer needs num_channels",
        ),
        (dict(loss="mmkd.L2Loss"), TypeError, "expected a module or a config dict with 'type'"),
        (dict(loss=dict(alpha=4)), ValueError, r"needs the key 'type', got \{'alpha': 4\}"),
        (dict(loss=dict(type="mmkd.L3Loss")), ValueError, "no class is registered .*'mmkd.L3Loss'"),
        (dict(loss=dict(type="mmkd.L2Loss", beta=1)), TypeError, "beta"),
        (dict(loss=dict(type="mmkd.LogSumLoss", alpha=0)), ValueError, "alpha must be 1 or more"),
    ],
)
def test_mistakes_in_settings(settings: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FeatureDistiller(**{**dict(student_channels=6, teacher_channels=8), **settings})


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((2, 5, 4, 4), (2, 8, 4, 4), r"a student feature of 6 channels, got shape \(2, 5, 4, 4\)"),
        ((2, 6, 4, 4), (2, 5, 4, 4), r"a teacher feature of 8 channels, got shape \(2, 5, 4, 4\)"),
        ((2, 6, 4, 4), (3, 8, 4, 4), "student's feature holds 2 images, the teacher's 3"),
        ((2, 6), (2, 8, 4, 4), r"cannot pair \(2, 6\) with \(2, 8, 4, 4\)"),
        ((2, 3, 3, 3, 6), (2, 3, 3, 3, 8), r"a feature is \[N, C\]"),
        ((1, 6, 1, 1), (1, 8, 1, 1), "BatchNormalizer needs 2 samples or more, got 1"),
    ],
)
def test_mistakes_in_features(
    student: tuple[int, ...], teacher: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureDistiller(6, 8)(torch.zeros(student), torch.zeros(teacher))


# Logits, labels, classifiers, extra tokens


@pytest.mark.parametrize("loss", ["KDLoss", "HardDistillationLoss"])
def test_logits_are_compared_as_they_are(loss: str) -> None:
    distiller = FeatureDistiller(5, 5, loss=_config(loss), weight=0.9)
    assert isinstance(distiller.projector, IdentityProjector)
    assert isinstance(distiller.normalizer, IdentityNormalizer)
    student, teacher = _random(3, 5), _random(3, 5, seed=1)
    expected = build_part(_config(loss))(student, teacher)
    assert torch.equal(distiller.distance(student, teacher), expected)
    assert torch.equal(distiller(student, teacher), 0.9 * expected)
    # One sample, as at the end of an epoch, has no statistics to lack.
    assert torch.isfinite(distiller(student[:1], teacher[:1]))


def test_defaults_for_logits_can_be_replaced() -> None:
    distiller = FeatureDistiller(5, 3, loss=_config("KDLoss"), projector=_config("LinearProjector"))
    assert isinstance(distiller.projector, LinearProjector)
    assert isinstance(distiller.normalizer, IdentityNormalizer)


@pytest.mark.parametrize("loss", ["KDLoss", "HardDistillationLoss"])
def test_logits_of_other_classes(loss: str) -> None:
    with pytest.raises(ValueError, match=r"got 3 of the student and 5 of the teacher: logits need"):
        FeatureDistiller(3, 5, loss=_config(loss))


@pytest.mark.parametrize("loss", [L2Loss(), _config("MSELoss"), _config("LogSumLoss")])
def test_features_keep_their_defaults(loss: object) -> None:
    distiller = FeatureDistiller(3, 5, loss=loss)
    assert isinstance(distiller.projector, LinearProjector)
    assert isinstance(distiller.normalizer, BatchNormalizer)
    assert not distiller.takes.targets


AS_IT_IS = dict(projector=_config("IdentityProjector"), normalizer=_config("IdentityNormalizer"))


def test_a_teacher_classifier_reaches_the_loss() -> None:
    classifier = nn.Linear(8, 5).requires_grad_(False)
    distiller = FeatureDistiller(
        8,
        8,
        loss=_config("SoftmaxRegressionLoss"),
        view="global",
        teacher_classifier=classifier,
        **AS_IT_IS,
    )
    student, teacher = _random(2, 8, 3, 3).requires_grad_(), _random(2, 8, 3, 3, seed=1)
    value = distiller(student, teacher)
    pooled = (each.mean(dim=(2, 3)) for each in (student, teacher))
    torch.testing.assert_close(value, SoftmaxRegressionLoss(classifier)(*pooled))
    value.backward()
    assert student.grad.any()
    # Neither a part of what is saved nor of what is trained.
    assert list(distiller.state_dict()) == []
    assert list(distiller.parameters()) == []


def test_labels_and_a_student_classifier_reach_the_loss() -> None:
    classifier = nn.Linear(8, 5)
    distiller = FeatureDistiller(
        8,
        8,
        loss=_config("JointClassifierLoss"),
        view="global",
        weight=2.0,
        student_classifier=classifier,
        **AS_IT_IS,
    )
    assert distiller.takes.targets
    student, teacher = _random(3, 8), _random(3, 8, seed=1).requires_grad_()
    labels = torch.tensor([4, 0, 1])
    targets = Targets((1, 1), labels=labels)
    expected = JointClassifierLoss(classifier)(student, teacher, targets=targets)
    assert torch.equal(distiller.distance(student, teacher, targets), expected)
    distiller(student, teacher, targets).backward()
    assert teacher.grad is None
    assert classifier.weight.grad.any()
    with pytest.raises(ValueError, match=r"needs a label for each of 3 samples, got 2: .*'global'"):
        distiller(student, teacher, Targets((1, 1), labels=labels[:2]))
    with pytest.raises(ValueError, match=r"needs what the images show \(targets\), got none"):
        distiller(student, teacher)
    with pytest.raises(
        ValueError, match=r"asks for class labels of images, .* the batches .* hold none"
    ):
        distiller(student, teacher, Targets((1, 1)))


@pytest.mark.parametrize(
    ("loss", "classifiers", "message"),
    [
        ("SoftmaxRegressionLoss", [], "SoftmaxRegressionLoss needs teacher_classifier"),
        ("JointClassifierLoss", [], "JointClassifierLoss needs student_classifier"),
        ("JointClassifierLoss", ["teacher"], "JointClassifierLoss needs student_classifier"),
        (
            "SoftmaxRegressionLoss",
            ["student", "teacher"],
            "student_classifier is given, but SoftmaxRegressionLoss takes none",
        ),
        ("MSELoss", ["teacher"], "teacher_classifier is given, but MSELoss takes none"),
        ("KDLoss", ["student"], "student_classifier is given, but KDLoss takes none"),
    ],
)
def test_classifiers_that_do_not_fit(loss: str, classifiers: list[str], message: str) -> None:
    given = {f"{side}_classifier": nn.Linear(8, 5) for side in classifiers}
    with pytest.raises(ValueError, match=message):
        FeatureDistiller(8, 8, loss=_config(loss), **AS_IT_IS, **given)


def test_a_classifier_beside_a_loss_that_has_one_is_refused() -> None:
    """Of two classifiers one would be left out without a word."""
    loss = SoftmaxRegressionLoss(nn.Linear(8, 5))
    with pytest.raises(ValueError, match="teacher_classifier"):
        FeatureDistiller(8, 8, loss=loss, teacher_classifier=nn.Linear(8, 5), **AS_IT_IS)


def test_under_autocast_classifiers_compute_in_float32() -> None:
    classifier = nn.Linear(8, 5)
    student, teacher = _random(4, 8), _random(4, 8, seed=1)
    for loss, side in (("SoftmaxRegressionLoss", "teacher"), ("JointClassifierLoss", "student")):
        settings = {"loss": _config(loss), f"{side}_classifier": classifier, **AS_IT_IS}
        distiller = FeatureDistiller(8, 8, **settings)
        targets = Targets((1, 1), labels=torch.tensor([0, 1, 2, 3]))
        exact = distiller(student, teacher, targets)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(distiller(student, teacher, targets), exact)


@pytest.mark.parametrize("view", ["global", "dense"])
def test_extra_tokens_are_left_out(view: str) -> None:
    student, teacher = _random(3, 2 + 9, 6), _random(3, 1 + 9, 8, seed=1)
    distiller = FeatureDistiller(6, 8, view=view, student_extra_tokens=2, teacher_extra_tokens=1)
    patches = FeatureDistiller(6, 8, view=view)
    assert torch.equal(distiller(student, teacher), patches(student[:, 2:], teacher[:, 1:]))


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_extra_tokens_of_a_map(side: str) -> None:
    distiller = FeatureDistiller(6, 8, **{f"{side}_extra_tokens": 1})
    with pytest.raises(ValueError, match=r"no 1 extra tokens can be left out of shape \(2, [68], "):
        distiller(*_maps())


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("count", [-1, 1.5])
def test_a_count_of_extra_tokens_out_of_range(side: str, count: float) -> None:
    with pytest.raises(ValueError, match=f"{side}_extra_tokens must be .*, got {count}"):
        FeatureDistiller(6, 8, **{f"{side}_extra_tokens": count})


# The registry's part in it


def test_build_part_accepts_a_class_as_type() -> None:
    assert isinstance(
        build_part(dict(type=LinearProjector), in_channels=2, out_channels=3), nn.Module
    )


def test_build_part_leaves_the_config_alone() -> None:
    config = dict(type="mmkd.LinearProjector", bias=False)
    build_part(config, in_channels=2, out_channels=3)
    assert config == dict(type="mmkd.LinearProjector", bias=False)


# Maps and several levels


@MODELS.register_module()
class SumOverLevels(Loss):
    """The mean squared difference, summed over levels."""

    takes = Takes(form="maps", several_levels=True)

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        assert isinstance(student, list) and isinstance(teacher, list)
        return sum((s - t).square().mean() for s, t in zip(student, teacher, strict=True))


def test_several_levels_have_a_projector_each() -> None:
    loss = dict(type="SumOverLevels")
    distiller = FeatureDistiller([6, 3, 8], [8, 5, 8], loss=loss, weight=2.0, seed=4)
    students = [_random(2, c, size, size) for c, size in ((6, 8), (3, 4), (8, 2))]
    teachers = [_random(2, c, 4, 4, seed=1) for c in (8, 5, 8)]
    # Widths that are equal need none.
    kinds = [type(each) for each in distiller.projector]
    assert kinds == [LinearProjector, LinearProjector, IdentityProjector]
    first, second = (each.linear.weight for each in list(distiller.projector)[:2])
    assert first.shape == (8, 6) and second.shape == (5, 3)
    expected = torch.zeros(())
    for projector, ours, theirs in zip(distiller.projector, students, teachers, strict=True):
        size = min(ours.shape[2], theirs.shape[2])
        pair = (nn.functional.adaptive_avg_pool2d(x, size) for x in (ours, theirs))
        student, teacher = pair
        expected = expected + (projector(student) - teacher).square().mean()
    torch.testing.assert_close(distiller.distance(students, teachers), expected)
    torch.testing.assert_close(distiller(students, teachers), 2 * expected)
    again = FeatureDistiller([6, 3, 8], [8, 5, 8], loss=loss, seed=4)
    assert torch.equal(again.projector[1].linear.weight, second)


@pytest.mark.parametrize(
    ("channels", "settings", "message"),
    [
        (
            (6, 8),
            {},
            r"SumOverLevels takes several levels, got channels 6 and 8: in a term",
        ),
        (([6], [8]), dict(loss=L2Loss()), r"L2Loss takes one level, got channels \[6\] and \[8\]"),
        (
            ([6], [8]),
            dict(projector=nn.Identity()),
            "give the projector's config: each has its own",
        ),
        (([6], [8]), dict(view="dense"), "SumOverLevels compares maps, so that view='dense' does"),
    ],
)
def test_levels_that_do_not_fit(channels: tuple, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureDistiller(*channels, **{"loss": dict(type="SumOverLevels"), **settings})


@pytest.mark.parametrize("loss", ["PKDLoss", "CWDLoss"])
def test_maps_are_compared_on_a_common_grid(loss: str) -> None:
    distiller = FeatureDistiller(6, 8, loss=_config(loss))
    assert distiller.view == "map"
    assert isinstance(distiller.normalizer, IdentityNormalizer)
    student, teacher = _random(2, 6, 8, 4), _random(2, 8, 4, 4, seed=1)
    pooled = nn.functional.adaptive_avg_pool2d(student, 4)
    expected = distiller.loss(distiller.projector(pooled), teacher)
    torch.testing.assert_close(distiller(student, teacher), expected)
    # Tokens are a map too.
    tokens = teacher.flatten(2).transpose(1, 2)
    torch.testing.assert_close(distiller(student, tokens, size=(64, 64)), expected)
    with pytest.raises(ValueError, match=r"view='map' pairs maps, got \(2, 6\) and"):
        distiller(student.mean(dim=(2, 3)), teacher)


def test_a_normalizer_of_samples_serves_maps() -> None:
    loss = dict(type="mmkd.CWDLoss", temperature=2.0)
    distiller = FeatureDistiller(6, 6, loss=loss, normalizer=_config("BatchNormalizer"))
    student, teacher = _random(2, 6, 3, 4), _random(2, 6, 3, 4, seed=1)
    normalized = [
        nn.functional.batch_norm(x, None, None, training=True, eps=1e-4) for x in (student, teacher)
    ]
    torch.testing.assert_close(distiller(student, teacher), distiller.loss(*normalized))


def test_losses_of_samples_refuse_the_view_of_maps() -> None:
    with pytest.raises(ValueError, match="L2Loss compares samples, so that view='map' does"):
        FeatureDistiller(6, 8, loss=L2Loss(), view="map")


def test_a_module_that_says_what_it_takes_must_be_a_loss() -> None:
    """Or else it would be given samples, without a word."""

    class Unheard(nn.Module):
        takes = Takes(form="maps", targets=("boxes",))

    with pytest.raises(
        ValueError, match=r"Unheard says what it takes, .* derive it from that class"
    ):
        FeatureDistiller(6, 8, loss=Unheard())


def test_own_distillers_check_their_weight() -> None:
    with pytest.raises(ValueError, match="weight must be 0 or more, got -1"):
        Distiller(-1)
