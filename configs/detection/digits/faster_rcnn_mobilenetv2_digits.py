_base_ = [
    "../_base_/faster_rcnn_digits.py",
    "../_base_/digits_detection.py",
    "../_base_/digits_runtime.py",
]
custom_imports = dict(imports=["mmkd"])

model = dict(
    backbone=dict(
        type="MobileNetV2",
        widen_factor=0.35,
        out_indices=(2, 4, 6),
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
    ),
    neck=dict(type="FPN", in_channels=[16, 32, 112], out_channels=32, num_outs=3),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=32), bbox_head=dict(in_channels=32)),
)
