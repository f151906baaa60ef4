# The teacher: a ResNet-18 of 24 channels.
_base_ = [
    "../_base_/gfl_neu_det.py",
    "../_base_/neu_det_detection.py",
    "../_base_/neu_det_runtime.py",
]
custom_imports = dict(imports=["mmkd"])

model = dict(
    backbone=dict(base_channels=24, stem_channels=24),
    neck=dict(in_channels=[48, 96, 192], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64),
)
