# SP (Tung & Mori, ICCV 2019): weight 3000 as in the paper.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    sp=dict(loss=dict(type="mmkd.SPLoss"), weight=3000.0),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
