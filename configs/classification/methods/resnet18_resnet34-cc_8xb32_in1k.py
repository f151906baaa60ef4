# CC (Peng et al., ICCV 2019). The weight is ours: the paper's belongs to another denominator.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    cc=dict(loss=dict(type="mmkd.CCLoss"), weight=1.0),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
