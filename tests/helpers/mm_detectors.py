"""MMDetection's detectors of a few channels for the digits; a teacher is wider."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope

from helpers.detector import detector_config

__all__ = ["DETECTORS", "model_config", "training_config", "write_teacher"]

STRIDES = [8, 16, 32]
_names = (f"method{i}" for i in itertools.count())
_ASSIGNER = dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
_ATSS = dict(type="ATSSAssigner", topk=9)
_FOCAL = dict(type="FocalLoss", use_sigmoid=True)
_ONE_ANCHOR = dict(
    type="AnchorGenerator",
    ratios=[1.0],
    octave_base_scale=4,
    scales_per_octave=1,
    strides=STRIDES,
)
_DELTAS = dict(type="DeltaXYWHBBoxCoder", target_stds=[0.1, 0.1, 0.2, 0.2])


def _head(kind: str, channels: int, **settings: Any) -> dict[str, Any]:
    common = dict(type=kind, num_classes=10, in_channels=channels, feat_channels=channels)
    return {**common, "stacked_convs": 4, **settings}


def _single_stage(kind: str, head: dict[str, Any], assigner: dict[str, Any] | None) -> dict:
    return dict(
        type=kind,
        bbox_head=head,
        train_cfg=dict(assigner=assigner, allowed_border=-1, pos_weight=-1, debug=False),
        test_cfg=dict(nms_pre=100, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.6),
                      min_bbox_size=0, max_per_img=10),
    )  # fmt: skip


def _gfl(c: int) -> dict:
    norm = dict(
        norm_cfg=dict(type="GN", num_groups=4),
        anchor_generator=_ONE_ANCHOR,
        loss_bbox=dict(type="GIoULoss"),
    )
    quality = dict(type="QualityFocalLoss", use_sigmoid=True)
    return _single_stage("GFL", _head("GFLHead", c, reg_max=16, loss_cls=quality, **norm), _ATSS)


def _atss(c: int) -> dict:
    head = _head(
        "ATSSHead", c, norm_cfg=dict(type="GN", num_groups=4), anchor_generator=_ONE_ANCHOR,
        bbox_coder=_DELTAS, loss_cls=_FOCAL, loss_bbox=dict(type="GIoULoss"),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True),
    )  # fmt: skip
    return _single_stage("ATSS", head, _ATSS)


def _retinanet(c: int) -> dict:
    anchors = dict(type="AnchorGenerator", octave_base_scale=4, scales_per_octave=1,
                   ratios=[0.5, 1.0, 2.0], strides=STRIDES)  # fmt: skip
    head = _head("RetinaHead", c, anchor_generator=anchors, bbox_coder=_DELTAS, loss_cls=_FOCAL,
                 loss_bbox=dict(type="L1Loss"))  # fmt: skip
    return _single_stage("RetinaNet", head, _ASSIGNER)


def _fcos(c: int) -> dict:
    ranges = ((-1, 32), (32, 64), (64, 1e8))
    head = _head("FCOSHead", c, strides=STRIDES, regress_ranges=ranges, loss_cls=_FOCAL,
                 norm_cfg=dict(type="GN", num_groups=4))  # fmt: skip
    return _single_stage("FCOS", head, None)


def _rtmdet(c: int) -> dict:
    head = dict(
        type="RTMDetSepBNHead", num_classes=10, in_channels=c, feat_channels=c, stacked_convs=2,
        with_objectness=False, norm_cfg=dict(type="BN"), act_cfg=dict(type="ReLU"),
        anchor_generator=dict(type="MlvlPointGenerator", offset=0, strides=STRIDES),
        bbox_coder=dict(type="DistancePointBBoxCoder"),
        loss_cls=dict(type="QualityFocalLoss", use_sigmoid=True),
        loss_bbox=dict(type="GIoULoss"), share_conv=True, pred_kernel_size=1,
    )  # fmt: skip
    return _single_stage("RTMDet", head, dict(type="DynamicSoftLabelAssigner", topk=13))


def _yolox(c: int) -> dict:
    head = _head("YOLOXHead", c, strides=STRIDES, stacked_convs=2)
    return _single_stage("YOLOX", head, dict(type="SimOTAAssigner", center_radius=2.5))


def _faster_rcnn(c: int) -> dict:
    rpn = dict(
        type="RPNHead", in_channels=c, feat_channels=c,
        anchor_generator=dict(type="AnchorGenerator", scales=[2], ratios=[0.5, 1.0, 2.0],
                              strides=STRIDES),
        bbox_coder=dict(type="DeltaXYWHBBoxCoder"),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True), loss_bbox=dict(type="L1Loss"),
    )  # fmt: skip
    box_head = dict(
        type="Shared2FCBBoxHead", in_channels=c, fc_out_channels=4 * c, roi_feat_size=7,
        num_classes=10, bbox_coder=_DELTAS, reg_class_agnostic=False,
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False), loss_bbox=dict(type="L1Loss"),
    )  # fmt: skip
    extractor = dict(
        type="SingleRoIExtractor", out_channels=c, featmap_strides=STRIDES,
        roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
    )  # fmt: skip
    sampler = dict(type="RandomSampler", neg_pos_ub=-1, add_gt_as_proposals=False)
    region = dict(_ASSIGNER, pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5)
    return dict(
        type="FasterRCNN",
        rpn_head=rpn,
        roi_head=dict(
            type="StandardRoIHead", bbox_roi_extractor=extractor, bbox_head=box_head
        ),
        train_cfg=dict(
            rpn=dict(
                assigner=dict(_ASSIGNER, pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
                sampler=dict(sampler, num=64, pos_fraction=0.5),
                allowed_border=-1, pos_weight=-1, debug=False,
            ),
            rpn_proposal=dict(nms_pre=100, max_per_img=50, min_bbox_size=0,
                              nms=dict(type="nms", iou_threshold=0.7)),
            rcnn=dict(
                assigner=dict(region, match_low_quality=False),
                sampler=dict(sampler, num=32, pos_fraction=0.25, add_gt_as_proposals=True),
                pos_weight=-1, debug=False,
            ),
        ),
        test_cfg=dict(
            rpn=dict(nms_pre=100, max_per_img=50, min_bbox_size=0,
                     nms=dict(type="nms", iou_threshold=0.7)),
            rcnn=dict(score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=10),
        ),
    )  # fmt: skip


DETECTORS = dict(
    faster_rcnn=_faster_rcnn,
    retinanet=_retinanet,
    gfl=_gfl,
    fcos=_fcos,
    atss=_atss,
    rtmdet=_rtmdet,
    yolox=_yolox,
)


def model_config(kind: str, width: int, channels: int = 16) -> dict[str, Any]:
    """A detector on a ResNet-18 of this width and a pyramid of three levels."""
    backbone = dict(
        type="ResNet", depth=18, base_channels=width, stem_channels=width, out_indices=(1, 2, 3),
        frozen_stages=-1, norm_cfg=dict(type="BN"), norm_eval=False, style="pytorch",
    )  # fmt: skip
    widths = [2 * width, 4 * width, 8 * width]
    neck = dict(type="FPN", in_channels=widths, out_channels=channels, num_outs=3)
    preprocessor = dict(type="DetDataPreprocessor", mean=[0] * 3, std=[255] * 3,
                        pad_size_divisor=32)  # fmt: skip
    return dict(
        **DETECTORS[kind](channels), backbone=backbone, neck=neck, data_preprocessor=preprocessor
    )


def training_config(kind: str, digits: Path, work_dir: Path, channels: int = 16) -> Config:
    """A student on the digits for an epoch of three iterations, without validation."""
    config = detector_config(digits, work_dir, **{"train_cfg.max_epochs": 1})
    config.model = model_config(kind, 4, channels)
    for split in ("val", "test"):
        for part in ("cfg", "dataloader", "evaluator"):
            config[f"{split}_{part}"] = None
    config.train_cfg.pop("val_interval")
    config.experiment_name = config.visualizer.name = next(_names)
    return config


def write_teacher(kind: str, folder: Path, channels: int = 16) -> dict[str, str]:
    """A wider detector of the kind with seeded weights; the ``teacher`` setting that names it."""
    file, weights = folder / f"{kind}_teacher.py", folder / f"{kind}_teacher.pth"
    config = Config(dict(model=model_config(kind, 8, channels), default_scope="mmdet"))
    config.dump(file)
    with torch.random.fork_rng(), DefaultScope.overwrite_default_scope("mmdet"):
        init_default_scope("mmdet")
        torch.manual_seed(11)
        model = MODELS.build(config.model)
        model.init_weights()
        # Heads begin with nearly equal logits, which leave nothing to compare.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.mul_(1.5)
    torch.save(dict(state_dict=model.state_dict()), weights)
    return dict(config=str(file), checkpoint=str(weights))
