# MobileNetV2 of half width alone.
_base_ = "../_base_/cifar100_crd_240e.py"

model = dict(
    backbone=dict(type="mmkd.CIFARMobileNetV2"),
    head=dict(
        in_channels=1280,
        init_cfg=dict(_delete_=True, type="Normal", layer="Linear", std=0.01, bias=0),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
