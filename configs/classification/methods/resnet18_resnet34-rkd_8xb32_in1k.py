# RKD (Park et al., CVPR 2019): distances 25, angles 50, as in CRD's framework.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    rkd=dict(loss=dict(type="mmkd.RKDLoss"), weight=1.0),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
