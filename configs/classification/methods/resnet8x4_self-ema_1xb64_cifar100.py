# ResNet-8x4 with its own moving average for a teacher (Tarvainen & Valpola, NeurIPS 2017): momentum
# as there, KD's weights and temperature as in CRD's framework.
_base_ = "../cifar100/resnet8x4_1xb64_cifar100.py"

model = dict(head=dict(loss=dict(loss_weight=0.1)))
terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.KDLoss", temperature=4.0),
        weight=0.9,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=dict(ema=0.999), terms=terms)]
