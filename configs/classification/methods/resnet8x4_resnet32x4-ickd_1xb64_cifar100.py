# ICKD (Liu et al., ICCV 2021): weight 2.5 as in the authors' program.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    ickd=dict(loss=dict(type="mmkd.ICKDLoss"), weight=2.5),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
