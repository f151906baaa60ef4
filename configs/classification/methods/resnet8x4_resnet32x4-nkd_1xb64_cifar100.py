# ResNet-32x4 teaches ResNet-8x4 by NKD: gamma 3.5, T 3, the authors' program on CIFAR-100.
_base_ = ["../_base_/pairs/resnet8x4_resnet32x4.py", "../_base_/terms/nkd.py"]

terms = _base_.terms
terms["kd"]["loss"].update(gamma=3.5, temperature=3.0)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
