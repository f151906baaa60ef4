# ResNet-32x4 teaches ResNet-8x4 by RKD.
_base_ = ["../_base_/pairs/resnet8x4_resnet32x4.py", "../_base_/terms/rkd.py"]

custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=_base_.terms)]
