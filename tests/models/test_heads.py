"""Heads for distillation: values, weights, what they cost and what they refuse."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models.heads import DeiTClsHead, LinearClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn.functional import conv2d

from mmkd.registry import MODELS

NARROW = dict(num_classes=3, in_channels=4, teacher_channels=6)


@pytest.fixture(autouse=True)
def in_mmpretrain() -> Iterator[None]:
    """MMPretrain's own heads build their losses in the default scope, whoever set it before."""
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        yield


def build(kind: str, **settings: Any) -> nn.Module:
    return MODELS.build(dict(type=f"mmkd.{kind}", **settings))


def connector_head(**settings: Any) -> Any:
    return build("ConnectorClsHead", **{**NARROW, **settings})


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def samples(*labels: int) -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in labels]


def cross_entropy(logits: Tensor, labels: list[int]) -> float:
    total = 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        total += math.log(sum(math.exp(each) for each in row)) - row[label]
    return total / len(labels)


# ConnectorClsHead


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", ["1x1", "1x1-1x1", "1x1-3x3-1x1"])
def test_connector_head_by_hand(layout: str, training: bool) -> None:
    head = connector_head(connector=dict(type="mmkd.ConvConnector", layout=layout)).double()
    for name, buffer in head.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2.0)
    head.train(training)
    head.fc.weight.data.copy_(random(3, 6, seed=4))
    x = feature = random(2, 4, 5, 3)
    statistics = {name: buffer.clone() for name, buffer in head.named_buffers()}
    layers = list(head.connector.layers)
    for index in range(0, len(layers), 3):
        kernel = layers[index].weight
        x = conv2d(x, kernel, padding=kernel.shape[-1] // 2)
        if training:
            mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
        else:
            key = f"connector.layers.{index + 1}.running_"
            mean, variance = statistics[f"{key}mean"], statistics[f"{key}var"]
        mean, variance = (each.view(1, -1, 1, 1) for each in (mean, variance))
        x = ((x - mean) / (variance + 1e-5).sqrt()).clamp(min=0)
    pooled = sum(x[:, :, i, j] for i in range(5) for j in range(3)) / 15
    expected = pooled @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head((feature,)), expected)
    torch.testing.assert_close(head.pre_logits((feature,)), pooled)
    if not training:
        found = head.loss((feature,), samples(2, 0))["loss"].item()
        assert found == pytest.approx(cross_entropy(expected, [2, 0]))


def test_the_last_of_several_maps_is_connected() -> None:
    head = connector_head().double().eval()
    last = random(2, 4, 3, 3)
    assert torch.equal(head((random(2, 8, 6, 6), last)), head((last,)))


def test_a_linear_connector_takes_vectors_and_maps() -> None:
    head = connector_head(connector=dict(type="mmkd.LinearProjector")).double()
    linear, fc = head.connector.linear, head.fc
    feature = random(2, 4, 3, 3)
    pooled = feature.mean(dim=(2, 3))
    expected = (pooled @ linear.weight.T + linear.bias) @ fc.weight.T + fc.bias
    torch.testing.assert_close(head((feature,)), expected)
    torch.testing.assert_close(head((pooled,)), expected)


@pytest.mark.parametrize(
    ("connector", "added"),
    [
        # Convolutions and BatchNorms of the widths 4, 3, 3, 6, and the larger classifier.
        (None, 4 * 3 + 6 + 9 * 3 * 3 + 6 + 3 * 6 + 12 + (6 - 4) * 3),
        (dict(type="mmkd.ConvConnector", layout="1x1"), 4 * 6 + 12 + (6 - 4) * 3),
        (dict(type="mmkd.LinearProjector"), 4 * 6 + 6 + (6 - 4) * 3),
    ],
)
def test_what_it_adds(connector: dict | None, added: int) -> None:
    head = connector_head(connector=connector)
    assert head.added_parameters == added
    own = LinearClsHead(num_classes=3, in_channels=4)
    counts = [sum(p.numel() for p in each.parameters()) for each in (head, own)]
    assert counts[0] - counts[1] == added


def test_the_papers_connector() -> None:
    """ResNet34 to ResNet18, ImageNet: half the teacher's width inside."""
    head = connector_head(num_classes=1000, in_channels=512, teacher_channels=512)
    shapes = [tuple(m.weight.shape) for m in head.connector.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(256, 512, 1, 1), (256, 256, 3, 3), (512, 256, 1, 1)]
    assert head.fc.weight.shape == (1000, 512)


@pytest.mark.parametrize("freeze", [True, False])
def test_only_the_classifier_is_frozen(freeze: bool) -> None:
    head = connector_head(freeze_classifier=freeze)
    head.init_weights()
    frozen = {name for name, p in head.named_parameters() if not p.requires_grad}
    assert frozen == ({"fc.weight", "fc.bias"} if freeze else set())
    head((random(2, 4, 3, 3).float(),)).sum().backward()
    assert {n for n, p in head.named_parameters() if p.grad is None} == frozen


def test_the_run_s_seed_decides_the_connector() -> None:
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(nn.utils.parameters_to_vector(connector_head().connector.parameters()))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("kind", ["LinearProjector", "MLPProjector", "ConvConnector"])
def test_a_connector_keeps_its_initial_weights(kind: str) -> None:
    """The classifier's initialisation, N(0, 0.01^2), is not the connector's."""
    torch.manual_seed(0)
    head = connector_head(connector=dict(type=f"mmkd.{kind}"))
    before = nn.utils.parameters_to_vector(head.connector.parameters()).clone()
    head.init_weights()
    assert torch.equal(before, nn.utils.parameters_to_vector(head.connector.parameters()))
    assert head.fc.weight.std() < 0.02
    assert not head.fc.bias.any()


def test_the_config_is_left_alone() -> None:
    connector = dict(type="mmkd.ConvConnector", layout="1x1")
    connector_head(connector=connector)
    assert connector == dict(type="mmkd.ConvConnector", layout="1x1")


@pytest.mark.parametrize("layout", ["1x1", "1x1-1x1", "1x1-3x3-1x1"])
def test_a_vector_does_not_fit_a_layout(layout: str) -> None:
    head = connector_head(connector=dict(type="mmkd.ConvConnector", layout=layout))
    with pytest.raises(ValueError, match=r"takes a map \[N, 4, H, W\], got \(2, 4\): a vector"):
        head((torch.zeros(2, 4),))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(teacher_channels=5), "factor 2 does not divide out_channels 5"),
        (dict(connector=dict(layout="1x1")), "needs the key 'type'"),
        (dict(connector=dict(type="mmkd.ConvConnector", layout="5x5")), "layout must be one of"),
        (dict(connector=dict(type="mmkd.IdentityProjector")), "got 4 of the student and 6 of the"),
        (dict(in_channels=0), "in_channels must be a positive integer, got 0"),
    ],
)
def test_what_does_not_fit(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        connector_head(**settings)


# DeiTDistillHead


def deit_head(kind: str = "mmkd.DeiTDistillHead", **settings: Any) -> Any:
    given = dict(type=kind, num_classes=3, in_channels=4)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        head = MODELS.build({**given, **settings}).double()
    for index, parameter in enumerate(head.parameters()):
        parameter.data.copy_(random(*parameter.shape, seed=index + 1))
    return head


def tokens() -> tuple[Tensor, Tensor]:
    return random(2, 4, seed=20), random(2, 4, seed=21)


def by_hand(head: Any) -> tuple[Tensor, Tensor]:
    pair = tokens()
    if head.hidden_dim is not None:
        shared = head.layers.pre_logits
        pair = tuple((x @ shared.weight.T + shared.bias).tanh() for x in pair)
    layers = (head.layers.head, head.layers.head_dist)
    ours, theirs = (x @ f.weight.T + f.bias for x, f in zip(pair, layers, strict=True))
    return ours, theirs


@pytest.mark.parametrize("hidden_dim", [None, 5])
@pytest.mark.parametrize("training", [True, False])
def test_deit_head_by_hand(hidden_dim: int | None, training: bool) -> None:
    head = deit_head(hidden_dim=hidden_dim).train(training)
    of_class, of_teacher = by_hand(head)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logits = head((tokens(),))
    torch.testing.assert_close(logits, (of_class + of_teacher) / 2)
    # Labels teach the class token alone.
    loss = head.loss((tokens(),), samples(2, 1))["loss"]
    assert loss.item() == pytest.approx(cross_entropy(of_class, [2, 1]))
    loss.backward()
    assert head.layers.head.weight.grad.any()
    assert head.layers.head_dist.weight.grad is None


def test_deit_head_predicts_the_mean() -> None:
    head = deit_head().eval()
    of_class, of_teacher = by_hand(head)
    scores = ((of_class + of_teacher) / 2).softmax(dim=1)
    for found, expected in zip(head.predict((tokens(),)), scores, strict=True):
        torch.testing.assert_close(found.pred_score, expected)
        assert int(found.pred_label) == int(expected.argmax())


def test_deit_head_s_both_classifiers_run_in_training() -> None:
    head, ran = deit_head(), []
    for name in ("head", "head_dist"):
        getattr(head.layers, name).register_forward_hook(lambda *_, name=name: ran.append(name))
    head.loss((tokens(),), samples(2, 1))
    assert sorted(ran) == ["head", "head_dist"]


@pytest.mark.parametrize("hidden_dim", [None, 5])
def test_deit_head_has_the_stock_head_s_weights(hidden_dim: int | None) -> None:
    ours, stock = (
        deit_head(k, hidden_dim=hidden_dim) for k in ("mmkd.DeiTDistillHead", "DeiTClsHead")
    )
    assert type(stock) is DeiTClsHead
    assert list(ours.state_dict()) == list(stock.state_dict())
    stock.load_state_dict(ours.state_dict(), strict=True)
    stock.eval()
    torch.testing.assert_close(ours((tokens(),)), stock((tokens(),)))


@pytest.mark.parametrize("shape", [(2, 4), (2, 5, 4), (3, 4), (2, 4, 2, 2)])
def test_a_backbone_without_distillation_token(shape: tuple[int, ...]) -> None:
    """Three images' class tokens must not pass as three tokens."""
    head = deit_head()
    feats = (torch.zeros(shape, dtype=torch.float64),)
    text = r"no distillation token, only a tensor \(.*use DistilledVisionTransformer with out_type"
    with pytest.raises(ValueError, match=text):
        head(feats)
    with pytest.raises(ValueError, match=text):
        head.loss(feats, samples(*[0] * shape[0]))
    with pytest.raises(ValueError, match=text):
        head.predict(feats)
