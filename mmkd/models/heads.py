"""Heads for distillation that MMPretrain lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from mmpretrain.models.heads import DeiTClsHead, LinearClsHead
from torch import Tensor, nn

from mmkd.registry import build_part

__all__ = ["ConnectorClsHead", "DeiTDistillHead"]


class ConnectorClsHead(LinearClsHead):
    """Connector, pooling, and a classifier of the teacher's shape: the student as SimKD (Chen et
    al., CVPR 2022) and IJCKD (Li et al., arXiv 2304.11004) deploy it.

    The weights of ``fc`` come from the teacher, by ``DistillHook(inherit={'head.fc': 'head.fc'})``,
    and are saved with the student's, so that it predicts without teacher and hook.

    Args:
        num_classes: K, the teacher's.
        in_channels: C_s of the backbone's last map.
        teacher_channels: C_t that the teacher's classifier takes.
        connector: A projector's config; None for ``mmkd.ConvConnector``, 1x1 - 3x3 - 1x1.
        freeze_classifier: Whether ``fc`` keeps the teacher's weights (SimKD) or trains. Without the
            hook, nothing gives a frozen one weights that mean anything: for a plain baseline take
            ``LinearClsHead``.
        **kwargs: Of ``LinearClsHead``: ``loss``, ``topk``, ``cal_acc``, ``init_cfg``.

    Shapes: ``([N, C_s, H, W],)`` to ``[N, K]``; a linear connector takes ``([N, C_s],)`` too.

    Raises:
        ValueError: A connector that does not fit; a vector where it takes maps.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        teacher_channels: int,
        connector: Mapping[str, Any] | None = None,
        freeze_classifier: bool = True,
        **kwargs: Any,
    ) -> None:
        # LinearClsHead's own would reach the linear layers of a connector too.
        kwargs.setdefault("init_cfg", dict(type="Normal", std=0.01, override=dict(name="fc")))
        super().__init__(num_classes=num_classes, in_channels=teacher_channels, **kwargs)
        self.connector = build_part(
            connector or dict(type="mmkd.ConvConnector"),
            in_channels=in_channels,
            out_channels=teacher_channels,
            # A part of the student like any other: the run's seed decides its weights.
            generator=torch.default_generator,
        )
        self.freeze_classifier = freeze_classifier
        self.fc.requires_grad_(not freeze_classifier)
        own = nn.Linear(in_channels, num_classes, device="meta")
        self.added_parameters = _count(self) - _count(own)

    def init_weights(self) -> None:
        """As ``LinearClsHead``; tells what the head costs."""
        super().init_weights()
        print_log(
            f"ConnectorClsHead: the deployed student has {self.added_parameters:,} parameters more "
            "than with a classifier of its own",
            logger="current",
        )

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The connected feature, pooled: ``[N, C_t]``."""
        connected = self.connector(feats[-1])
        return connected.mean(dim=(2, 3)) if connected.ndim == 4 else connected


class DeiTDistillHead(DeiTClsHead):
    """DeiT's two classifiers in training: labels teach the class token's, the teacher the other.

    The keys of its weights are those of ``DeiTClsHead``, which can take its place afterwards. For
    the teacher's part tap ``head.layers.head_dist``. Predictions are the mean of both (Touvron et
    al., 2021, section 4), so the second must be taught: a plain baseline, or a term of weight 0,
    needs ``VisionTransformerClsHead``, and with several processes an untaught classifier is an
    unused parameter to DistributedDataParallel.

    Raises:
        ValueError: The backbone gives no distillation token.
    """

    def pre_logits(self, feats: tuple[Sequence[Tensor], ...]) -> tuple[Tensor, Tensor]:
        """Class and distillation token, ``[N, C]`` each."""
        if isinstance(feats[-1], Tensor):
            raise ValueError(
                "DeiTDistillHead: the backbone gives no distillation token, only a tensor "
                f"{tuple(feats[-1].shape)}: use DistilledVisionTransformer with "
                "out_type='cls_token', or a head such as VisionTransformerClsHead"
            )
        return super().pre_logits(feats)

    def forward(self, feats: tuple[Sequence[Tensor], ...]) -> Tensor:
        """Mean of both classifiers' logits, ``[N, K]``."""
        return torch.stack(self._both(feats)).mean(dim=0)

    def loss(
        self, feats: tuple[Sequence[Tensor], ...], data_samples: list[Any], **kwargs: Any
    ) -> dict[str, Tensor]:
        """The class token's loss; the distillation token's classifier runs, to be tapped."""
        return self._get_loss(self._both(feats)[0], data_samples, **kwargs)

    def _both(self, feats: tuple[Sequence[Tensor], ...]) -> tuple[Tensor, Tensor]:
        class_token, distillation_token = self.pre_logits(feats)
        return self.layers.head(class_token), self.layers.head_dist(distillation_token)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
