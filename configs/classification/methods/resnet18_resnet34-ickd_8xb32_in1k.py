# ResNet-34 teaches ResNet-18 by ICKD.
_base_ = ["../_base_/pairs/resnet18_resnet34.py", "../_base_/terms/ickd.py"]

custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=_base_.terms)]
