_base_ = [
    "../_base_/faster_rcnn_digits.py",
    "../_base_/digits_detection.py",
    "../_base_/digits_runtime.py",
]
custom_imports = dict(imports=["mmkd"])

model = dict(
    backbone=dict(
        type="ResNet",
        depth=18,
        base_channels=32,
        stem_channels=32,
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        style="pytorch",
    ),
    neck=dict(type="FPN", in_channels=[64, 128, 256], out_channels=64, num_outs=3),
)
