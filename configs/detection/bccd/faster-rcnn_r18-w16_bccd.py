# The teacher: a ResNet-18 of 16 channels, trained twice as long as the student.
_base_ = [
    "../_base_/faster-rcnn_bccd.py",
    "../_base_/bccd_detection.py",
    "../_base_/bccd_runtime.py",
]
custom_imports = dict(imports=["mmkd"])

model = dict(
    backbone=dict(base_channels=16, stem_channels=16),
    neck=dict(in_channels=[128], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(bbox_roi_extractor=dict(out_channels=64), bbox_head=dict(in_channels=64)),
)

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type="CosineAnnealingLR",
        T_max=max_epochs,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(checkpoint=dict(interval=max_epochs))
