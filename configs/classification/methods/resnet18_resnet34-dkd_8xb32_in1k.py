# DKD (Zhao et al., CVPR 2022): alpha 1, beta 0.5, T 1, as in the authors' program, whose rise of an
# epoch is none.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.DKDLoss", beta=0.5, temperature=1.0),
        weight=1.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
