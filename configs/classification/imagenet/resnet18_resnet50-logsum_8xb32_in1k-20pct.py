# ResNet-50 teaches ResNet-18 by LogSum: Miles & Mikolajczyk, Table 2. Another alpha:
# --cfg-options custom_hooks.0.terms.feature.loss.alpha=5.0
_base_ = ["./resnet18_8xb32_in1k-20pct.py", "../_base_/terms/logsum.py"]

teacher_checkpoint = "checkpoints/resnet50.pth"
teacher = dict(config="mmpretrain::resnet/resnet50_8xb32_in1k.py", checkpoint=teacher_checkpoint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
