# FitNet (Romero et al., ICLR 2015), first stage: the student up to its middle learns the hint and
# nothing else, by half the squared distance (Eq. (3)), as the authors' program in the mean over
# images and cells. The paper stops where the hint improves no more; here it is 12 epochs. The
# second stage is resnet18_resnet34-fitnet-kd_8xb32_in1k.py.
_base_ = "./resnet18_resnet34-fitnet_8xb32_in1k.py"

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
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={"backbone.layer3": still, "backbone.layer4": still, "head": still}
    )
)
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = dict(milestones=[7, 10])
