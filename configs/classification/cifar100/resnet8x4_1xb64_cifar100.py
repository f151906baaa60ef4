# ResNet-8x4 alone.
_base_ = "../_base_/cifar100_crd_240e.py"

model = dict(
    backbone=dict(type="mmkd.CIFARResNet", depth=8, widths=(32, 64, 128, 256)),
    head=dict(in_channels=256),
)
