# ResNet-34 teaches ResNet-18 by RKD.
_base_ = ["../_base_/pairs/resnet18_resnet34.py", "../_base_/terms/rkd.py"]

custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=_base_.terms)]
