# ResNet-32x4 teaches ResNet-8x4 by Spherical KD.
_base_ = ["../_base_/pairs/resnet8x4_resnet32x4.py", "../_base_/terms/spherical.py"]

model = dict(head=dict(loss=dict(loss_weight=0.1)))
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=_base_.terms)]
