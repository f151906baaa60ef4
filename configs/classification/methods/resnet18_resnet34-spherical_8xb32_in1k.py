# Spherical KD (Guo et al., 2020). The paper's T is 4; 0.1 cross-entropy + 0.9 as KD here.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

model = dict(head=dict(loss=dict(loss_weight=0.1)))
terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.SphericalKDLoss"),
        weight=0.9,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
