# FitNet (Romero et al., ICLR 2015), first stage: the student up to its middle learns the hint and
# nothing else, by half the squared distance (Eq. (3)), as the authors' program in the mean over
# images and cells. The paper stops where the hint improves no more; here it is 30 epochs. The
# second stage is resnet8x4_resnet32x4-fitnet-kd_1xb64_cifar100.py.
_base_ = "./resnet8x4_resnet32x4-fitnet_1xb64_cifar100.py"

model = dict(head=dict(loss=dict(loss_weight=0.0)))
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=_base_.teacher,
        terms=dict(hint=dict(_base_.terms.hint, loss=dict(type="mmkd.L2Loss"), weight=1.0)),
    )
]
# What lies behind the hint stays as it was drawn.
still = dict(lr_mult=0.0, decay_mult=0.0)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={"backbone.stages.2": still, "head": still}))
max_epochs = 30
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = dict(milestones=[18, 24])
