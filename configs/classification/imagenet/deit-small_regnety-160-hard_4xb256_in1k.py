# RegNetY-160 teaches DeiT-S as DeiT does, by its decisions on the distillation token.
_base_ = "mmpretrain::deit/deit-small-distilled_4xb256_in1k.py"
custom_imports = dict(imports=["mmkd"])

model = dict(head=dict(type="mmkd.DeiTDistillHead", loss=dict(loss_weight=0.5)))
teacher_checkpoint = "checkpoints/regnety-160.pth"
teacher = dict(config="{{ fileDirname }}/regnety-160_8xb32_in1k.py", checkpoint=teacher_checkpoint)
loss = dict(type="mmkd.HardDistillationLoss")
dist = dict(student="head.layers.head_dist", teacher="head.fc", loss=loss, weight=0.5)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=dict(dist=dist))]
