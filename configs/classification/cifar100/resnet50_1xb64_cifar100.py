# ResNet-50 with a 3x3 stem alone.
_base_ = "../_base_/cifar100_crd_240e.py"

model = dict(
    backbone=dict(type="mmkd.CIFARBottleneckResNet", depth=50),
    head=dict(in_channels=2048),
)
