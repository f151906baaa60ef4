# The teacher: 16 to 64 channels, one epoch more.
_base_ = "./resnet8-w4_digits.py"

max_epochs = 4
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(interval=max_epochs))
optim_wrapper = dict(optimizer=dict(lr=0.05))
rise, fall = _base_.param_scheduler
rise.end = 10
fall.update(T_max=max_epochs, end=max_epochs)
param_scheduler = [rise, fall]
model = dict(
    backbone=dict(widths=(16, 16, 32, 64)),
    head=dict(in_channels=64),
)
