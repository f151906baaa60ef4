# RegNetY-160 teaches DeiT-Ti: Miles & Mikolajczyk, Table 5.
_base_ = [
    "mmpretrain::deit/deit-tiny-distilled_4xb256_in1k.py",
    "../_base_/terms/deit_logsum.py",
]
custom_imports = dict(imports=["mmkd"])

model = dict(head=dict(type="mmkd.DeiTDistillHead"))
teacher_checkpoint = "checkpoints/regnety-160.pth"
teacher = dict(config="{{ fileDirname }}/regnety-160_8xb32_in1k.py", checkpoint=teacher_checkpoint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
