# WRN-16-2 alone.
_base_ = "../_base_/cifar100_crd_240e.py"

model = dict(
    backbone=dict(type="mmkd.WideResNet", depth=16, widen_factor=2),
    head=dict(in_channels=128),
)
