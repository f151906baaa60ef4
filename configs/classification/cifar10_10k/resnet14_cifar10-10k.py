# The teacher: twice the width, and five times as long a training.
_base_ = "./resnet8_cifar10-10k.py"

max_epochs = 25
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(interval=max_epochs))
rise, fall = _base_.param_scheduler
fall.update(T_max=max_epochs, end=max_epochs)
param_scheduler = [rise, fall]
model = dict(
    backbone=dict(depth=14, widths=(32, 32, 64, 128)),
    head=dict(in_channels=128),
)
