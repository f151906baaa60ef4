# ShuffleNetV2 alone.
_base_ = "../_base_/cifar100_crd_240e.py"

model = dict(
    backbone=dict(type="mmkd.CIFARShuffleNetV2"),
    head=dict(in_channels=1024),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
