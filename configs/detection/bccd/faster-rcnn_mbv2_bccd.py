# The student alone: MobileNetV2 of 0.35 times the width, an FPN of 32 channels.
_base_ = [
    "../_base_/faster-rcnn_bccd.py",
    "../_base_/bccd_detection.py",
    "../_base_/bccd_runtime.py",
]
custom_imports = dict(imports=["mmkd"])

model = dict(
    backbone=dict(
        _delete_=True,
        type="MobileNetV2",
        widen_factor=0.35,
        out_indices=(2, 4, 6),
        norm_eval=False,
    ),
    neck=dict(in_channels=[16, 32, 112], out_channels=32, num_outs=3),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=32), bbox_head=dict(in_channels=32)),
)
