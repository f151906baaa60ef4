# DIST (Huang et al., NeurIPS 2022): factors 2, T 1.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.DISTLoss", temperature=1.0),
        weight=1.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
