# RegNetY-160 teaches DeiT-Ti by DeiT's soft distillation, at temperature 3.
_base_ = "mmpretrain::deit/deit-tiny-distilled_4xb256_in1k.py"
custom_imports = dict(imports=["mmkd"])

model = dict(head=dict(type="mmkd.DeiTDistillHead", loss=dict(loss_weight=0.9)))
teacher_checkpoint = "checkpoints/regnety-160.pth"
teacher = dict(config="{{ fileDirname }}/regnety-160_8xb32_in1k.py", checkpoint=teacher_checkpoint)
loss = dict(type="mmkd.KDLoss", temperature=3.0)
dist = dict(student="head.layers.head_dist", teacher="head.fc", loss=loss, weight=0.1)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=dict(dist=dist))]
