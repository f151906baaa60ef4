# The teacher: 16 to 64 channels, one epoch more.
_base_ = "./resnet8-w4_digits.py"

max_epochs = 4
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(interval=max_epochs))
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=10),
    dict(
        type="CosineAnnealingLR",
        T_max=max_epochs,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
model = dict(
    backbone=dict(widths=(16, 16, 32, 64)),
    head=dict(in_channels=64),
)
