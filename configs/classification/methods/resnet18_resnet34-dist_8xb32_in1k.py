# DIST (Huang et al., NeurIPS 2022): factors 2, T 1, the paper's for ImageNet.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.DISTLoss", beta=2.0, gamma=2.0, temperature=1.0),
        weight=1.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
