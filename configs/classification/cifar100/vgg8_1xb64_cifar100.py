# VGG-8 alone.
_base_ = "../_base_/cifar100_crd_240e.py"

model = dict(
    backbone=dict(type="mmkd.CIFARVGG", depth=8),
    head=dict(
        in_channels=512,
        init_cfg=dict(_delete_=True, type="Normal", layer="Linear", std=0.01, bias=0),
    ),
)
