# ResNet-34 teaches ResNet-18 by Standardised logits.
_base_ = ["../_base_/pairs/resnet18_resnet34.py", "../_base_/terms/standardised.py"]

custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=_base_.terms)]
