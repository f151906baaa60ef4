"""CivT: Ren et al., *Co-advise: Cross Inductive Bias Distillation* (CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.heads import VisionTransformerClsHead
from torch import Tensor, nn

from mmkd.models.rednet import involution_stem

__all__ = ["CivT", "CivTClsHead"]

_STEM = 64


class _Tokens(nn.Module):
    """A stem, and its map's patches as tokens ``[N, L, C]``."""

    def __init__(self, stem: nn.Module, width: int, patch: int) -> None:
        super().__init__()
        self.stem = stem
        self.projection = nn.Conv2d(_STEM, width, patch, stride=patch)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.projection(self.stem(x))
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])


class CivT(VisionTransformer):
    """A vision transformer that listens to teachers of two kinds.

    Patches are the sum of what a convolutional and an involutional stem make of them; beside the
    class token stand the mean of either's patches, one for each teacher (section 3.2).

    Args:
        *args, **kwargs: Of MMPretrain's ``VisionTransformer``: ``arch``, ``img_size`` and others; a
            ``patch_size`` of an even number of pixels, since the stems halve the image.

    Shapes: ``[N, 3, H, W]`` to a tuple with one tuple of three tokens ``[N, C]``: class,
    convolution, involution.
    """

    num_extra_tokens = 3

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "out_type": "cls_token"})
        patch = self.patch_embed.projection.kernel_size[0] // 2
        # Of it, only the grid for which positions were made is asked for.
        grid: Any = nn.Identity()
        grid.init_out_size = self.patch_resolution
        self.patch_embed: Any = grid
        norm = dict(type="BN")
        convolutions = nn.Sequential(
            ConvModule(3, _STEM, 7, stride=2, padding=3, norm_cfg=norm),
            ConvModule(_STEM, _STEM, 3, padding=1, norm_cfg=norm),
            ConvModule(_STEM, _STEM, 3, padding=1, norm_cfg=norm),
        )
        self.convolution = _Tokens(convolutions, self.embed_dims, patch)
        self.involution = _Tokens(involution_stem(_STEM), self.embed_dims, patch)

    def forward(self, x: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
        ours, resolution = self.convolution(x)
        others, _ = self.involution(x)
        class_token = self.cls_token.expand(len(x), -1, -1)
        means = [side.mean(dim=1, keepdim=True) for side in (ours, others)]
        x = torch.cat([class_token, *means, ours + others], dim=1)
        x = x + self.resize_pos_embed(
            self.pos_embed,
            self.patch_resolution,
            resolution,
            mode=self.interpolate_mode,
            num_extra_tokens=self.num_extra_tokens,
        )
        x = self.pre_norm(self.drop_after_pos(x))
        for layer in self.layers:
            x = layer(x)
        if self.final_norm:
            x = self.ln1(x)
        return ((x[:, 0], x[:, 1], x[:, 2]),)


class CivTClsHead(VisionTransformerClsHead):
    """A classifier a token. Labels teach the first; for the teachers tap ``head.layers.head_conv``
    and ``head.layers.head_inv``. Predictions are the mean of the three (section 3.2).

    Args: those of ``VisionTransformerClsHead``, without a hidden layer.

    Shapes: what :class:`CivT` returns to ``[N, K]``.
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        for name in ("head_conv", "head_inv"):
            self.layers.add_module(name, nn.Linear(self.in_channels, self.num_classes))

    def forward(self, feats: Sequence[Sequence[Tensor]]) -> Tensor:
        """Mean of the three classifiers' logits, ``[N, K]``."""
        return torch.stack(self._each(feats)).mean(dim=0)

    def loss(
        self, feats: Sequence[Sequence[Tensor]], data_samples: list[Any], **kwargs: Any
    ) -> dict[str, Tensor]:
        """The class token's loss; the other classifiers run, to be tapped."""
        return self._get_loss(self._each(feats)[0], data_samples, **kwargs)

    def _each(self, feats: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        layers = (self.layers.head, self.layers.head_conv, self.layers.head_inv)
        return [layer(token) for layer, token in zip(layers, feats[-1], strict=True)]
