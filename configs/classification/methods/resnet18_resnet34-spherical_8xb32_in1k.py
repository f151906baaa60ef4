# ResNet-34 teaches ResNet-18 by Spherical KD.
_base_ = ["../_base_/pairs/resnet18_resnet34.py", "../_base_/terms/spherical.py"]

model = dict(head=dict(loss=dict(loss_weight=0.1)))
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=_base_.terms)]
