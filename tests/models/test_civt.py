"""Involution against loops; RedNet's and CivT's sizes, tokens and classifiers."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmkd.models.involution import Involution
from mmkd.registry import MODELS

ARCH = dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=16)


def build(kind: str, **settings: Any) -> Any:
    with DefaultScope.overwrite_default_scope("mmpretrain"), torch.random.fork_rng():
        torch.manual_seed(0)
        found = MODELS.build(dict(type=f"mmkd.{kind}", **settings))
    found.eval()  # MMPretrain's backbones return nothing from it
    return found


def by_loops(layer: Involution, x: Tensor) -> Tensor:
    """Location by location and channel by channel."""
    images, channels, height, width = x.shape
    stride, half = layer.stride, layer.kernel_size // 2
    h, w = height // stride, width // stride
    means = x.reshape(images, channels, h, stride, w, stride).mean(dim=(3, 5))
    reduce, span = layer.conv1.conv.weight[:, :, 0, 0], layer.conv2.conv
    norm = layer.conv1.bn
    found = torch.zeros(images, channels, h, w, dtype=x.dtype)
    for n in range(images):
        for i in range(h):
            for j in range(w):
                hidden = reduce @ means[n, :, i, j]
                hidden = (hidden - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
                hidden = (hidden * norm.weight + norm.bias).clamp(min=0)
                kernel = span.weight[:, :, 0, 0] @ hidden + span.bias
                kernel = kernel.reshape(layer.groups, layer.kernel_size, layer.kernel_size)
                for c in range(channels):
                    for u in range(-half, half + 1):
                        for v in range(-half, half + 1):
                            a, b = i * stride + u, j * stride + v
                            if 0 <= a < height and 0 <= b < width:
                                weight = kernel[c * layer.groups // channels, u + half, v + half]
                                found[n, c, i, j] += weight * x[n, c, a, b]
    return found


@given(seed=st.integers(0, 2**16), stride=st.sampled_from([1, 2]), size=st.sampled_from([3, 5]))
def test_involution_against_loops(seed: int, stride: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layer = Involution(4, size, stride, group_channels=2, reduction=2).double().eval()
    with torch.no_grad():
        for tensor in (*layer.parameters(), layer.conv1.bn.running_mean):
            tensor.normal_(generator=generator)
        x = torch.randn(1, 4, 4, 6, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(layer(x), by_loops(layer, x))


def test_involution_refuses_odd_widths() -> None:
    with pytest.raises(ValueError, match="channels must be a multiple of 16 and 4, got 24"):
        Involution(24)


@pytest.mark.parametrize(("depth", "millions"), [(26, 9.2), (38, 12.4), (50, 15.5), (101, 25.6)])
def test_rednet_is_as_large_as_published(depth: int, millions: float) -> None:
    """Table 4 of the involution paper, with a classifier of 1000 classes."""
    network = build("RedNet", depth=depth)
    count = sum(parameter.numel() for parameter in network.parameters()) + 2048 * 1000 + 1000
    assert count / 1e6 == pytest.approx(millions, abs=0.06)


def test_rednet_has_an_involution_a_block_and_halves_five_times() -> None:
    network = build("RedNet", depth=26)
    found = [name for name, m in network.named_modules() if isinstance(m, Involution)]
    assert found[0] == "stem.1"
    assert found[1:] == [
        f"layer{stage}.{block}.conv2"
        for stage, blocks in enumerate((1, 2, 4, 1), 1)
        for block in range(blocks)
    ]
    (last,) = network(torch.rand(1, 3, 64, 96))
    assert last.shape == (1, 2048, 2, 3)


def test_civt_s_tokens() -> None:
    network = build("CivT", arch=ARCH, img_size=32, patch_size=16)
    given: list[Tensor] = []
    network.layers[0].register_forward_pre_hook(lambda m, args: given.append(args[0]))
    images = torch.rand(2, 3, 32, 32)
    ((*tokens,),) = network(images)
    assert [token.shape for token in tokens] == [(2, 8)] * 3
    sides = [side(images)[0] for side in (network.convolution, network.involution)]
    assert [side.shape for side in sides] == [(2, 4, 8)] * 2
    # All positions begin at 0.
    first = network.cls_token.expand(2, -1, -1) + network.pos_embed[:, :1]
    torch.testing.assert_close(given[0][:, :1], first)
    for place, side in enumerate(sides, 1):
        torch.testing.assert_close(
            given[0][:, place], side.mean(dim=1) + network.pos_embed[:, place]
        )
    torch.testing.assert_close(given[0][:, 3:], sum(sides) + network.pos_embed[:, 3:])
    ((*larger,),) = network(torch.rand(1, 3, 48, 32))
    assert [token.shape for token in larger] == [(1, 8)] * 3


def test_maps_of_odd_sizes() -> None:
    layer = Involution(4, 3, stride=2, group_channels=2, reduction=2).eval()
    assert layer(torch.rand(1, 4, 5, 7)).shape == (1, 4, 3, 4)
    assert build("RedNet", depth=26)(torch.rand(1, 3, 75, 50))[-1].shape == (1, 2048, 3, 2)


def test_civt_s_weights_serve_another_size() -> None:
    small, large = (build("CivT", arch=ARCH, img_size=size, patch_size=16) for size in (32, 64))
    large.load_state_dict(small.state_dict())
    torch.testing.assert_close(large.pos_embed[:, :3], small.pos_embed[:, :3])
    assert large.pos_embed.shape == (1, 3 + 16, 8)


def test_civt_s_classifiers() -> None:
    head = build("CivTClsHead", num_classes=3, in_channels=8, init_cfg=None)
    tokens = tuple(torch.rand(3, 2, 8).unbind())
    layers = (head.layers.head, head.layers.head_conv, head.layers.head_inv)
    each = [layer(token) for layer, token in zip(layers, tokens, strict=True)]
    torch.testing.assert_close(head((tokens,)), sum(each) / 3)
    samples = [DataSample().set_gt_label(label) for label in (2, 0)]
    loss = head.loss((tokens,), samples)["loss"]
    torch.testing.assert_close(loss, cross_entropy(each[0], torch.tensor([2, 0])))


def test_the_convolutional_teacher_s_width() -> None:
    with torch.device("meta"):
        assert timm.create_model("regnety_040").num_features == 1088
