"""A two-layer MMPretrain classifier, its data, and Runner configs around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import Dataset

import mmkd  # noqa: F401  (registers what the configs name)
from helpers.toy import draw_running_statistics, toy_config

SIZE = 8
CLASSES = 3
STUDENT_WIDTH = 4
TEACHER_WIDTH = 6
PREPROCESSOR = dict(
    type="ClsDataPreprocessor",
    mean=[120.0, 110.0, 100.0],
    std=[60.0, 55.0, 50.0],
    to_rgb=True,
    num_classes=CLASSES,
)
# Large enough that the classifier's gradients reach the backbone.
HEAD_INIT = dict(type="Normal", layer="Linear", std=0.3)


@MODELS.register_module()
class OneConvBackbone(nn.Module):
    """Convolution, BatchNorm if asked for, ReLU: ``[N, 3, H, W]`` to one map of half the size."""

    def __init__(self, width: int, norm: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.dropout(torch.relu(self.norm(self.conv(x)))),)


@DATASETS.register_module()
class LabelledNoise(Dataset):
    """Fixed noise images whose brightest channel is their label; flipped at random in training.

    Args:
        length: Number of images.
        flip: Whether to draw a flip from numpy's global state.
        views: Number of images each sample holds, as MMPretrain's ``MultiView`` packs them; 0 for
            a single one.
        classes: The label cycles through so many.
    """

    metainfo: ClassVar[dict] = dict(classes=("blue", "green", "red"))

    def __init__(
        self,
        length: int = 16,
        flip: bool = False,
        views: int = 0,
        offset: int = 0,
        classes: int = CLASSES,
    ) -> None:
        self.length, self.flip, self.views, self.offset = length, flip, views, offset
        self.classes = classes

    def __len__(self) -> int:
        return self.length

    def image(self, index: int) -> Tensor:
        """Before any flip: uint8 ``[3, SIZE, SIZE]``."""
        generator = torch.Generator().manual_seed(self.offset + index)
        image = torch.randint(0, 180, (3, SIZE, SIZE), generator=generator)
        image[index % 3] += 75
        return image.to(torch.uint8)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.image(index)
        if self.flip and np.random.rand() < 0.5:
            image = image.flip(2)
        told = dict(img_shape=(SIZE, SIZE), num_classes=self.classes, sample_idx=index)
        sample = DataSample(metainfo=told)
        sample.set_gt_label(index % self.classes)
        inputs = [image.roll(view, dims=2) for view in range(self.views)] if self.views else image
        return dict(inputs=inputs, data_samples=sample)


def linear_head(width: int = STUDENT_WIDTH, classes: int = CLASSES, **settings: Any) -> dict:
    """MMPretrain's ordinary head."""
    return dict(
        type="LinearClsHead",
        num_classes=classes,
        in_channels=width,
        init_cfg=HEAD_INIT,
        **settings,
    )


def connector_head(**settings: Any) -> dict:
    """The head of SimKD and IJCKD."""
    given = dict(
        type="mmkd.ConnectorClsHead",
        num_classes=CLASSES,
        in_channels=STUDENT_WIDTH,
        teacher_channels=TEACHER_WIDTH,
        init_cfg=HEAD_INIT,
    )
    return {**given, **settings}


def classifier(width: int = STUDENT_WIDTH, head: dict | None = None, **backbone: Any) -> dict:
    """A model's config; without a neck where the head connects the map."""
    head = head or linear_head(width)
    model = dict(
        type="ImageClassifier",
        data_preprocessor=dict(PREPROCESSOR),
        backbone=dict(type="OneConvBackbone", width=width, **backbone),
        head=head,
    )
    if head["type"] != "mmkd.ConnectorClsHead":
        model["neck"] = dict(type="GlobalAveragePooling")
    return model


def tiny_deit(head: dict | None = None, distilled: bool = True) -> dict:
    """A vision transformer of one layer on four patches."""
    arch = dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=16)
    kind = "DistilledVisionTransformer" if distilled else "VisionTransformer"
    default = dict(
        type="mmkd.DeiTDistillHead", num_classes=CLASSES, in_channels=8, init_cfg=HEAD_INIT
    )
    return dict(
        type="ImageClassifier",
        data_preprocessor=dict(PREPROCESSOR),
        backbone=dict(type=kind, arch=arch, img_size=SIZE, patch_size=4),
        head=head or default,
    )


# Parts of terms ---------------------------------------------------------------------------

AS_THEY_ARE = dict(
    projector=dict(type="mmkd.IdentityProjector"),
    normalizer=dict(type="mmkd.IdentityNormalizer"),
)
KD_TERM = dict(student="head.fc", teacher="head.fc", loss=dict(type="mmkd.KDLoss"))
SIMKD_TERM = dict(student="head.connector", loss=dict(type="mmkd.MSELoss"), **AS_THEY_ARE)
LOGITS_TERM = dict(
    student="head.fc", teacher="head.fc", loss=dict(type="mmkd.MSELoss"), **AS_THEY_ARE
)
JOINT_TERM = dict(
    student="head.connector",
    view="global",
    loss=dict(type="mmkd.JointClassifierLoss"),
    student_classifier="head.fc",
    **AS_THEY_ARE,
)
SRRL_TERM = dict(
    view="global",
    projector=dict(type="mmkd.ConvConnector", layout="1x1"),
    normalizer=dict(type="mmkd.IdentityNormalizer"),
    loss=dict(type="mmkd.SoftmaxRegressionLoss"),
    teacher_classifier="head.fc",
)
INHERIT = {"head.fc": "head.fc"}


# Runner configs ---------------------------------------------------------------------------


def classifier_config(work_dir: Path, model: dict | None = None, **overrides: Any) -> Config:
    """``toy_config`` with a classifier of MMPretrain's and labelled noise."""
    config = toy_config(
        work_dir,
        model=model or classifier(),
        default_scope="mmpretrain",
        **{"train_dataloader.dataset.type": "LabelledNoise"},
    )
    config.merge_from_dict(overrides)
    return config


VALIDATION: dict[str, Any] = dict(
    val_dataloader=dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(type="LabelledNoise", length=6, offset=1000),
    ),
    val_cfg=dict(),
    val_evaluator=dict(type="Accuracy", topk=(1,)),
)


def write_classifier(folder: Path, name: str = "teacher", seed: int = 7, **model: Any) -> dict:
    """Writes a wider classifier's config and seeded weights; the ``teacher`` setting for them."""
    model = {"norm": True, **model}
    config = Config(
        dict(
            default_scope="mmpretrain", model=classifier(model.pop("width", TEACHER_WIDTH), **model)
        )
    )
    config.dump(folder / f"{name}.py")
    with torch.random.fork_rng(), DefaultScope.overwrite_default_scope("mmpretrain"):
        torch.manual_seed(seed)
        built = MODELS.build(config.model)
        built.init_weights()
        draw_running_statistics(built)
        built.head.fc.bias.data.normal_()
    torch.save(dict(state_dict=built.state_dict()), folder / f"{name}.pth")
    return dict(config=str(folder / f"{name}.py"), checkpoint=str(folder / f"{name}.pth"))


def distill(teacher: dict, terms: dict, **settings: Any) -> dict[str, Any]:
    """The ``custom_hooks`` override of a distilled run."""
    hook = dict(
        type="mmkd.DistillHook", teacher=dict(teacher), terms=terms, probe_size=SIZE, **settings
    )
    return dict(custom_hooks=[hook])
