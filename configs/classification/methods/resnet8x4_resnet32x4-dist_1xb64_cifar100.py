# DIST (Huang et al., NeurIPS 2022): factors 2, T 4, the paper's for CIFAR-100.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.DISTLoss", beta=2.0, gamma=2.0, temperature=4.0),
        weight=1.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
