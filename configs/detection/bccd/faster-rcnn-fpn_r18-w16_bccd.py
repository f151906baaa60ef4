# The teacher, with a feature pyramid: a ResNet-18 of 16 channels.
_base_ = [
    "../_base_/faster-rcnn-fpn_bccd.py",
    "../_base_/bccd_detection.py",
    "../_base_/bccd_runtime.py",
]
custom_imports = dict(imports=["mmkd"])

model = dict(
    backbone=dict(base_channels=16, stem_channels=16),
    neck=dict(in_channels=[32, 64, 128], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=64), bbox_head=dict(in_channels=64)),
)
