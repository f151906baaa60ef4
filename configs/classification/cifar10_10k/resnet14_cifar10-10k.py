# The teacher: twice the width, and five times as long a training.
_base_ = "./resnet8_cifar10-10k.py"

max_epochs = 25
train_cfg = dict(max_epochs=max_epochs)
default_hooks = dict(checkpoint=dict(interval=max_epochs))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=100),
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
    backbone=dict(depth=14, widths=(32, 32, 64, 128)),
    head=dict(in_channels=128),
)
