# NKD (Yang et al., ICCV 2023): gamma 1.5, T 1, as in the paper.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.NKDLoss"),
        weight=1.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
