# DGKD (Son et al., ICCV 2021): ResNet-18 learns from the teacher and from its assistant, each left
# out of a quarter of the iterations. The weights are the sum of KD's with either, as in DKD's
# framework.
_base_ = "./resnet18_resnet26-takd_8xb32_in1k.py"

model = dict(head=dict(loss=dict(loss_weight=1.0)))
teachers = dict(first=_base_.teacher, assistant=_base_.assistant)
kd = dict(_base_.terms.kd, schedule=dict(drop=0.25))
densely = dict(first=dict(kd, source="first"), assistant=dict(kd, source="assistant"))
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teachers, terms=densely)]
