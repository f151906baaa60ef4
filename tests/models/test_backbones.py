"""The CIFAR networks: published sizes inside MMPretrain's classifier, and each block by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from mmpretrain.utils import register_all_modules
from torch import Tensor, nn
from torch.nn.functional import relu

import mmkd.models  # noqa: F401 (registers the networks)
from mmkd.models import CIFARResNet
from mmkd.models.cifar_bottleneck_resnet import _Bottleneck
from mmkd.models.cifar_mobilenet_v2 import CIFARMobileNetV2, _InvertedResidual
from mmkd.models.cifar_resnet import _BasicBlock
from mmkd.models.cifar_shufflenet_v1 import _ShuffleUnit, shuffle_channels
from mmkd.models.cifar_shufflenet_v2 import _DownUnit, _SplitUnit
from mmkd.models.cifar_vgg import CIFARVGG
from mmkd.models.wide_resnet import _PreActivationBlock

X4 = (32, 64, 128, 256)
# Published: parameters with 100 classes, penultimate width; side of the last map of 32 x 32.
NETWORKS: dict[str, tuple[dict[str, Any], int, int, int]] = {
    "resnet20": (dict(type="mmkd.CIFARResNet", depth=20), 278_324, 64, 8),
    "resnet56": (dict(type="mmkd.CIFARResNet", depth=56), 861_620, 64, 8),
    "resnet110": (dict(type="mmkd.CIFARResNet", depth=110), 1_736_564, 64, 8),
    "resnet8x4": (dict(type="mmkd.CIFARResNet", depth=8, widths=X4), 1_233_540, 256, 8),
    "resnet32x4": (dict(type="mmkd.CIFARResNet", depth=32, widths=X4), 7_433_860, 256, 8),
    "wrn_16_2": (dict(type="mmkd.WideResNet", depth=16, widen_factor=2), 703_284, 128, 8),
    "wrn_40_1": (dict(type="mmkd.WideResNet", depth=40, widen_factor=1), 569_780, 64, 8),
    "wrn_40_2": (dict(type="mmkd.WideResNet", depth=40, widen_factor=2), 2_255_156, 128, 8),
    "vgg8": (dict(type="mmkd.CIFARVGG", depth=8), 3_965_028, 512, 4),
    "vgg13": (dict(type="mmkd.CIFARVGG", depth=13), 9_462_180, 512, 4),
    "mobilenet_v2": (dict(type="mmkd.CIFARMobileNetV2"), 812_836, 1280, 2),
    "shufflenet_v1": (dict(type="mmkd.CIFARShuffleNetV1"), 949_258, 960, 4),
    "shufflenet_v2": (dict(type="mmkd.CIFARShuffleNetV2"), 1_355_528, 1024, 4),
    "resnet50": (dict(type="mmkd.CIFARBottleneckResNet"), 23_705_252, 2048, 4),
}
# The smallest of each class.
FAMILIES = (
    "resnet20",
    "wrn_16_2",
    "vgg8",
    "mobilenet_v2",
    "shufflenet_v1",
    "shufflenet_v2",
    "resnet50",
)


def classifier(name: str, seed: int = 0) -> nn.Module:
    """MMPretrain's classifier around a network, initialised as its trainer does it."""
    backbone, _, width, _ = NETWORKS[name]
    register_all_modules(init_default_scope=False)
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(
            dict(
                type="ImageClassifier",
                backbone=backbone,
                neck=dict(type="GlobalAveragePooling"),
                head=dict(type="LinearClsHead", num_classes=100, in_channels=width),
            )
        )
        model.init_weights()
    return model


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("name", NETWORKS)
def test_published_sizes_in_a_classifier_built_from_a_config(name: str) -> None:
    _, parameters, width, side = NETWORKS[name]
    model = classifier(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.backbone.out_channels == width
    with torch.no_grad():
        maps = model.backbone(images(2))
        (pooled,) = model.neck(maps)
        logits = model(images(2), mode="tensor")
    assert isinstance(maps, tuple) and len(maps) == 1
    assert maps[0].shape == (2, width, side, side)
    torch.testing.assert_close(pooled, maps[0].mean((2, 3)))
    assert pooled.shape == (2, width)
    torch.testing.assert_close(logits, model.head.fc(pooled))
    assert logits.shape == (2, 100)
    # After the last ReLU: many zeros, nothing below.
    assert maps[0].min() == 0 and maps[0].max() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = classifier(name)
    # BatchNorm in training takes the biases of VGG's convolutions out; with fixed statistics not.
    model.train(not name.startswith("vgg"))
    samples = [DataSample().set_gt_label(label) for label in (3, 50, 99, 3)]
    model.loss(images(4), samples)["loss"].backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_an_image_alone_is_predicted_as_in_a_batch(name: str) -> None:
    model = classifier(name)
    with torch.no_grad():
        model.train()
        model.backbone(images(8))  # gives BatchNorm statistics other than 0 and 1
        model.eval()
        batch = model.head(model.extract_feat(images(3)))
        alone = model.head(model.extract_feat(images(3)[1:2]))
    assert alone.shape == (1, 100)
    torch.testing.assert_close(alone[0], batch[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpoint_loads_strictly_and_predicts_the_same_bits(name: str, tmp_path: Path) -> None:
    model, other = classifier(name), classifier(name, seed=1)
    with torch.no_grad():
        model.train().backbone(images(4))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    other.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True), strict=True)
    assert {key.split(".")[0] for key in other.state_dict()} == {"backbone", "head"}
    with torch.no_grad():
        expected = model.eval().predict(images(2))
        found = other.eval().predict(images(2))
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a.pred_score, b.pred_score)


@pytest.mark.parametrize("name", FAMILIES)
def test_initial_weights_follow_the_seed(name: str) -> None:
    """Kaiming's normal ones, or of the ShuffleNets torch's own: U(-b, b), b = fan_in^(-1/2)."""
    first, again, other = classifier(name), classifier(name), classifier(name, seed=1)
    for module in first.backbone.modules():
        if isinstance(module, nn.Conv2d) and "ShuffleNet" in type(first.backbone).__name__:
            normed = module.weight.abs() * math.sqrt(module.weight[0].numel())
            assert 0.98 < normed.max() <= 1
            assert abs(normed.mean() - 0.5) < 6 / math.sqrt(12 * normed.numel())
        elif isinstance(module, nn.Conv2d):
            weight = module.weight.double()
            normed = weight * math.sqrt(weight[:, 0].numel() / 2)  # by k^2 C_out
            # Six standard errors of mean, variance and fourth moment of a unit normal.
            error = 6 / math.sqrt(weight.numel())
            assert abs(normed.mean()) < error
            assert abs(normed.square().mean() - 1) < math.sqrt(2) * error
            assert abs(normed.pow(4).mean() - 3) < math.sqrt(96) * error
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    weights = [m.state_dict() for m in (first, again, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not all(torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_init_cfg_of_a_config_wins(name: str) -> None:
    init_cfg = dict(type="Constant", layer=["Conv2d", "BatchNorm2d"], val=0.5)
    backbone = MODELS.build({**NETWORKS[name][0], "init_cfg": init_cfg})
    backbone.init_weights()
    layers = [m for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    assert all((layer.weight == 0.5).all() for layer in layers)


def test_stem_stride_skips_every_second_pixel() -> None:
    usual, quick = CIFARResNet(8), CIFARResNet(8, stem_stride=2)
    quick.load_state_dict(usual.state_dict(), strict=True)
    x = images(2)
    torch.testing.assert_close(quick.conv1(x), usual.conv1(x)[..., ::2, ::2])
    assert quick(x)[0].shape == (2, 64, 4, 4)


@pytest.mark.parametrize(("depth", "parts"), [(101, 33), (152, 50)])
def test_deeper_bottleneck_networks(depth: int, parts: int) -> None:
    with torch.device("meta"):
        network = MODELS.build(dict(type="mmkd.CIFARBottleneckResNet", depth=depth))
    blocks = [m for m in network.modules() if isinstance(m, _Bottleneck)]
    assert len(blocks) == parts and 3 * len(blocks) + 2 == depth


@pytest.mark.parametrize(("width", "expected"), [(0.25, 1280), (1.0, 1280), (1.4, 1792)])
def test_mobilenet_narrows_all_but_its_last_layer(width: float, expected: int) -> None:
    network = CIFARMobileNetV2(width)
    assert network.out_channels == expected
    assert network.stem[0].out_channels == int(32 * width)
    assert network.last[0].in_channels == int(320 * width)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            dict(type="mmkd.CIFARResNet", depth=18),
            r"depth must be 6 n \+ 2 \(8, 14, 20, \.\.\.\), got 18",
        ),
        (dict(type="mmkd.CIFARResNet", depth=2), r"depth must be 6 n \+ 2 .*, got 2"),
        (
            dict(type="mmkd.CIFARResNet", depth=8, widths=(16, 32, 64)),
            r"widths must be four, the stem's and three stages', got \(16, 32, 64\)",
        ),
        (
            dict(type="mmkd.CIFARBottleneckResNet", depth=34),
            r"depth must be one of \[50, 101, 152\], got 34",
        ),
        (
            dict(type="mmkd.WideResNet", depth=20, widen_factor=2),
            r"depth must be 6 n \+ 4 \(10, 16, 22, \.\.\.\), got 20",
        ),
        (
            dict(type="mmkd.WideResNet", depth=4, widen_factor=2),
            r"depth must be 6 n \+ 4 .*, got 4",
        ),
        (
            dict(type="mmkd.WideResNet", depth=16, widen_factor=1.5),
            r"widen_factor must be a positive integer, got 1\.5",
        ),
        (
            dict(type="mmkd.WideResNet", depth=16, widen_factor=0),
            r"widen_factor must be a positive integer, got 0",
        ),
        (dict(type="mmkd.CIFARVGG", depth=16), r"depth must be one of \[8, 13\], got 16"),
        (
            dict(type="mmkd.CIFARMobileNetV2", width=0.05),
            r"width must be 1/16 or more, 0\.5 is the papers', got 0\.05",
        ),
    ],
)
def test_what_no_network_has_is_an_error(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODELS.build(config)


# Blocks by hand: BatchNorm the identity, convolutions single numbers, float64.


def bare(block: nn.Module) -> nn.Module:
    """Convolutions 0, BatchNorm exactly the identity."""
    block = block.double().eval()
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
        elif isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1 - module.eps)
    return block


@torch.no_grad()
def scale(convolution: nn.Conv2d, value: float) -> None:
    """Output channel i is ``value`` times input channel i, of its group."""
    centre = convolution.kernel_size[0] // 2
    for i in range(convolution.out_channels):
        inside = i % (convolution.out_channels // convolution.groups)
        if inside < convolution.weight.shape[1]:
            convolution.weight[i, inside, centre, centre] = value


def pixels(*values: float) -> Tensor:
    """One image of one channel and one row."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


@torch.no_grad()
def run(block: nn.Module, x: Tensor) -> list[float]:
    return [round(value, 12) for value in block(x).flatten().tolist()]


def test_basic_block() -> None:
    block = bare(_BasicBlock(1, 1, stride=1))
    scale(block.conv1, -2)
    scale(block.conv2, 3)
    # relu(3 relu(-2 x) + x)
    assert run(block, pixels(1, -1, 2, -2)) == [1, 5, 2, 10]
    scale(block.conv2, -3)
    assert run(block, pixels(1, -1, 2, -2)) == [1, 0, 2, 0]


def test_basic_block_with_stride_projects_its_input() -> None:
    block = bare(_BasicBlock(1, 2, stride=2))
    scale(block.conv1, -2)
    scale(block.conv2, 3)
    with torch.no_grad():
        block.shortcut[0].weight[:, 0, 0, 0] = torch.tensor([10.0, -1.0])
    # Pixels 0 and 2; channel 0: relu(3 relu(-2 x) + 10 x), channel 1: relu(-x).
    assert run(block, pixels(1, 5, -1, 5)) == [10, 0, 0, 1]


def test_convolutions_see_their_neighbours() -> None:
    block = bare(_BasicBlock(1, 1, stride=1))
    with torch.no_grad():
        block.conv1.weight.fill_(1)
    scale(block.conv2, 1)
    # Sums of three neighbours, plus the pixel.
    assert run(block, pixels(1, 2, 3)) == [4, 8, 8]


def test_bottleneck() -> None:
    block = bare(_Bottleneck(4, 1, stride=1))
    scale(block.conv1, -1)  # from channel 0
    scale(block.conv2, 2)
    with torch.no_grad():
        block.conv3.weight[:, 0, 0, 0] = torch.tensor([1.0, 2.0, 3.0, -1.0])
    x = torch.tensor([-1.0, 5.0, -7.0, 1.0], dtype=torch.float64).reshape(1, 4, 1, 1)
    # relu(2 relu(1)) = 2 times (1, 2, 3, -1), plus x, then ReLU.
    assert run(block, x) == [1, 9, 0, 0]


def test_preactivation_block_adds_what_came_in() -> None:
    block = bare(_PreActivationBlock(1, 1, stride=1))
    assert block.shortcut is None
    scale(block.conv1, -2)
    scale(block.conv2, 3)
    # x + 3 relu(-2 relu(x)): the sum is not activated, and -1 passes.
    assert run(block, pixels(1, -1)) == [1, -1]
    scale(block.conv1, 2)
    assert run(block, pixels(1, -1)) == [7, -1]


def test_preactivation_block_projects_the_activated_input() -> None:
    block = bare(_PreActivationBlock(1, 2, stride=2))
    scale(block.shortcut, 10)
    # Pixels 0 and 2 of channel 0: 10 relu(x).
    assert run(block, pixels(1, 9, -1, 9)) == [10, 0, 0, 0]


def test_vgg_pools_before_the_convolution_and_adds_a_bias() -> None:
    network = CIFARVGG(8)
    for index, pools in enumerate([False, True, True, True, False]):
        assert isinstance(network.stages[index][0], nn.MaxPool2d) == pools
    stage = bare(network.stages[1])
    scale(stage[1], 2)
    with torch.no_grad():
        stage[1].bias.fill_(-5)
    x = torch.zeros(1, 64, 2, 2, dtype=torch.float64)
    x[0, 0] = torch.tensor([[1.0, 4.0], [3.0, 2.0]])
    x[0, 1] = -1
    # relu(2 max - 5) = 3 in channel 0; relu(-2 - 5) and relu(-5) = 0 in the others.
    assert run(stage, x) == [3] + [0] * 127


def test_inverted_residual_is_linear_at_its_end() -> None:
    block = bare(_InvertedResidual(1, 1, stride=1, expansion=2))
    expand, depthwise, reduce = (m for m in block.layers if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        expand.weight[:, 0, 0, 0] = torch.tensor([1.0, -1.0])
        depthwise.weight[:, 0, 1, 1] = torch.tensor([10.0, 20.0])
        reduce.weight[0, :, 0, 0] = torch.tensor([1.0, -1.0])
    # x + 10 relu(x) - 20 relu(-x): no bound at 6, none at 0.
    assert run(block, pixels(2, -2)) == [22, -42]


@pytest.mark.parametrize(("channels", "stride"), [(1, 2), (2, 1)])
def test_inverted_residual_of_another_shape_adds_nothing(channels: int, stride: int) -> None:
    block = bare(_InvertedResidual(1, channels, stride=stride, expansion=1))
    assert not any(run(block, pixels(1, 1)))


@pytest.mark.parametrize(
    ("groups", "expected"),
    [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 3, 1, 4, 2, 5]), (3, [0, 2, 4, 1, 3, 5])],
)
def test_shuffle(groups: int, expected: list[int]) -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1).expand(2, 6, 2, 3)
    shuffled = shuffle_channels(x, groups)
    assert shuffled.shape == x.shape
    assert shuffled[1, :, 1, 2].tolist() == expected


def test_shuffle_unit_mixes_its_groups() -> None:
    block = bare(_ShuffleUnit(12, 12, stride=1))
    assert (block.conv1.groups, block.conv2.groups, block.conv3.groups) == (3, 3, 3)
    block = bare(_ShuffleUnit(48, 48, stride=1))
    scale(block.conv1, 1)  # inner 0..3, 4..7, 8..11 <- x 0..3, 16..19, 32..35
    scale(block.conv2, 1)
    scale(block.conv3, 1)  # output 0..3, 16..19, 32..35 <- shuffled 0..3, 4..7, 8..11
    x = torch.zeros(1, 48, 1, 1, dtype=torch.float64)
    x[0, [0, 1, 2, 3, 16, 17, 18, 19, 32, 33, 34, 35], 0, 0] = torch.arange(1.0, 13).double()
    # Shuffled: 1 5 9 2 | 6 10 3 7 | 11 4 8 12. Each is added to the x of its place.
    y = run(block, x)
    assert y[:4] == [1 + 1, 2 + 5, 3 + 9, 4 + 2]
    assert y[16:20] == [5 + 6, 6 + 10, 7 + 3, 8 + 7]
    assert y[32:36] == [9 + 11, 10 + 4, 11 + 8, 12 + 12]
    assert not any(y[4:16] + y[20:32] + y[36:])
    assert run(block, -x) == [0] * 48


def test_shuffle_unit_with_stride_appends_the_pooled_input() -> None:
    block = bare(_ShuffleUnit(24, 48, stride=2))
    assert (block.conv1.groups, block.conv3.groups) == (1, 3)  # the stem's channels stay whole
    x = torch.ones(1, 24, 2, 2, dtype=torch.float64)
    # 24 channels of the branch, which is 0, then means over 3 x 3 with 5 padded zeros.
    assert run(block, x) == [0] * 24 + [round(4 / 9, 12)] * 24


def test_split_unit_changes_one_half_and_interleaves() -> None:
    block = bare(_SplitUnit(4))
    for convolution in (m for m in block.branch if isinstance(m, nn.Conv2d)):
        scale(convolution, 10)
    x = torch.tensor([-1.0, 2.0, 3.0, -4.0], dtype=torch.float64).reshape(1, 4, 1, 1)
    # The half (-1, 2) passes as it is; (3, -4) becomes (3000, 0).
    assert run(block, x) == [-1, 3000, 2, 0]


def test_down_unit_interleaves_its_branches() -> None:
    block = bare(_DownUnit(2, 4))
    for side, value in ((block.shortcut, 2), (block.branch, 3)):
        for convolution in (m for m in side if isinstance(m, nn.Conv2d)):
            scale(convolution, value)
    x = torch.tensor([1.0, 9.0, 9.0, 9.0, -1.0, 9.0, 9.0, 9.0], dtype=torch.float64)
    # One pixel of four is left: 2^2 and 3^3 times 1; -1 ends at the ReLU.
    assert run(block, x.reshape(1, 2, 2, 2)) == [4, 27, 0, 0]


def test_padded_shortcuts_are_he_s_option_a() -> None:
    """Every second pixel, with zeros for the new channels, half of them before."""
    network = CIFARResNet(8, shortcut="pad").eval()
    assert sum(p.numel() for p in network.parameters()) < sum(
        p.numel() for p in CIFARResNet(8).parameters()
    )
    block = network.stages[1][0]
    x = images(2).repeat(1, 6, 1, 1)[:, :16].relu()
    inner = relu(block.bn1(block.conv1(x)))
    expected = block.bn2(block.conv2(inner))
    for channel in range(16):
        expected[:, 8 + channel] += x[:, channel, ::2, ::2]
    torch.testing.assert_close(block(x), relu(expected))
    with pytest.raises(ValueError, match="shortcut must be 'project' or 'pad', got 'crop'"):
        CIFARResNet(8, shortcut="crop")  # type: ignore[arg-type]
