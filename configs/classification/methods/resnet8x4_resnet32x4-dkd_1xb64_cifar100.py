# DKD (Zhao et al., CVPR 2022): alpha 1, beta 8, T 4 after a rise of 20 epochs, as in the paper; the
# authors' program rises epoch by epoch from 1/20, this along a line from 0.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.DKDLoss"),
        weight=1.0,
        schedule=dict(ramp=20),
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
