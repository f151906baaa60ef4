# The teacher: ResNet-18 of half the width.
_base_ = [
    "../_base_/faster-rcnn_bccd.py",
    "../_base_/bccd_detection.py",
    "../_base_/bccd_runtime.py",
]
custom_imports = dict(imports=["mmkd"])

model = dict(
    backbone=dict(
        depth=18,
        base_channels=32,
        stem_channels=32,
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=64, num_outs=3),
)
