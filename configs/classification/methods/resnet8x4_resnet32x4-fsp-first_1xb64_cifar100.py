# FSP (Yim et al., CVPR 2017), first stage: the flow from stage to stage and nothing else (Eq. (3),
# weight 1), at one learning rate for 30 epochs, as in CRD's framework. The second stage is the task
# alone: resnet8x4_1xb64_cifar100.py with this one's epoch_30.pth for its load_from.
_base_ = "./resnet8x4_resnet32x4-fsp_1xb64_cifar100.py"

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
max_epochs = 30
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = dict(milestones=[])
