# ResNet-18 with its own moving average for a teacher (Tarvainen & Valpola, NeurIPS 2017): momentum
# and rise as in the authors' program for a residual network on ImageNet, KD's weights and
# temperature as in CRD's framework.
_base_ = "mmpretrain::resnet/resnet18_8xb32_in1k.py"
custom_imports = dict(imports=["mmkd"])

model = dict(head=dict(loss=dict(loss_weight=0.1)))
terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.KDLoss", temperature=4.0),
        weight=0.9,
        schedule=dict(ramp=5),
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=dict(ema=0.9997), terms=terms)]
