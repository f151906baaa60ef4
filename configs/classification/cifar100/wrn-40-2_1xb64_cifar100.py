# WRN-40-2 alone.
_base_ = "../_base_/cifar100_wrn.py"

model = dict(
    backbone=dict(type="mmkd.WideResNet", depth=40, widen_factor=2),
    head=dict(in_channels=128),
)
