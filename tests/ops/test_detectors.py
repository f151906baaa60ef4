"""mmdet's own detectors, shrunk, train a step and predict on the stand-in."""

from __future__ import annotations

from typing import Any

import mmdet.models  # noqa: F401  (registers the detectors)
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

SIZE = 96
CHANNELS = 32  # group normalization in FCOS' head has as many groups
DETECTORS = {
    "faster_rcnn": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "cascade_rcnn": "cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py",
    "retinanet": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "fcos": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "dcn_v1": "dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py",
    "dcn_v2": "dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py",
}


def shrink(config: dict[str, Any], channels: int = CHANNELS) -> None:
    """Fewer channels wherever the config names their number, in place."""
    for key, value in list(config.items()):
        if key in ("feat_channels", "out_channels", "fc_out_channels"):
            config[key] = channels
        elif isinstance(value, dict):
            shrink(value, channels)
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, dict):
                    shrink(part, channels)


def build(name: str) -> torch.nn.Module:
    model = get_config(f"mmdet::{DETECTORS[name]}").model
    shrink(model)
    backbone = model["backbone"]
    # A bottleneck, the only block that takes deformable convolutions, ends 4 times as wide.
    deep = "dcn" in backbone
    backbone.update(
        depth=50 if deep else 18,
        base_channels=4 if deep else 8,
        init_cfg=None,
        frozen_stages=-1,
        zero_init_residual=False,  # or the first step has no gradient inside the blocks
    )
    model["neck"]["in_channels"] = [w * (16 if deep else 8) for w in (1, 2, 4, 8)]
    for head in [model.get("bbox_head"), model.get("rpn_head")]:
        if head is not None:
            head["in_channels"] = CHANNELS
            if head.get("stacked_convs"):
                head["stacked_convs"] = 1
    if "roi_head" in model:
        heads = model["roi_head"]["bbox_head"]
        for head in heads if isinstance(heads, list) else [heads]:
            head["in_channels"] = CHANNELS
    # Untrained scores are low; without a threshold the prediction passes through nms.
    test = model["test_cfg"].get("rcnn", model["test_cfg"])
    test.update(score_thr=0.0, max_per_img=20)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(model)
    detector.init_weights()
    return detector


def batch() -> dict[str, list]:
    generator = torch.Generator().manual_seed(0)
    images, samples = [], []
    for boxes in ([[8.0, 8, 60, 70], [40, 30, 90, 88]], []):  # the second image shows nothing
        images.append(torch.randint(256, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8))
        sample = DetDataSample(
            metainfo={"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1, 1)}
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes).reshape(-1, 4), labels=torch.arange(len(boxes))
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    return {"inputs": images, "data_samples": samples}


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", DETECTORS)
def test_detector_trains_a_step_and_predicts(device, name, autocast):
    detector = build(name).to(device).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
        data = detector.data_preprocessor(batch(), training=True)
        loss, _ = detector.parse_losses(detector(**data, mode="loss"))
    assert torch.isfinite(loss)
    loss.backward()
    before = {}
    for key, parameter in detector.named_parameters():
        if parameter.requires_grad:
            before[key] = parameter.detach().clone()
            assert parameter.grad is not None, f"{key} has no gradient"
            assert torch.isfinite(parameter.grad).all(), key
    offsets = [key for key in before if "conv_offset" in key]
    assert bool(offsets) == name.startswith("dcn")
    for key in ["backbone.conv1.weight", *offsets]:
        assert detector.get_parameter(key).grad.any(), key
    optimizer.step()
    assert not torch.equal(before["backbone.conv1.weight"], detector.backbone.conv1.weight)

    detector.eval()
    with torch.autocast(device, dtype=torch.bfloat16, enabled=autocast):
        predictions = detector.test_step(batch())
    assert len(predictions) == 2
    for prediction in predictions:
        found = prediction.pred_instances
        assert 0 < len(found) <= 20
        assert torch.isfinite(found.bboxes).all()
        assert found.bboxes.min() >= 0
        assert found.bboxes.max() <= SIZE
        assert (found.scores.diff() <= 0).all()
