# RKD (Park et al., CVPR 2019): distances 25, angles 50, as in CRD's framework.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    rkd=dict(loss=dict(type="mmkd.RKDLoss"), weight=1.0),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
