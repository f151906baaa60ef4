# FSP (Yim et al., CVPR 2017), first stage: the flow from stage to stage and nothing else (Eq. (3),
# weight 1), at one learning rate for 12 epochs, an eighth of the second stage's as on CIFAR-100.
# The second stage is the task alone: MMPretrain's resnet18_8xb32_in1k.py with this one's
# epoch_12.pth for its load_from.
_base_ = "./resnet18_resnet34-fsp_8xb32_in1k.py"

model = dict(head=dict(loss=dict(loss_weight=0.0)))
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=_base_.teacher,
        terms=dict(fsp=dict(_base_.terms.fsp, weight=1.0)),
    )
]
# The classifier stays as it was drawn.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"head": dict(lr_mult=0.0, decay_mult=0.0)}))
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = dict(milestones=[])
