# ResNet-34 teaches ResNet-18 by LogSum and KL: Miles & Mikolajczyk, Table 6.
_base_ = ["mmpretrain::resnet/resnet18_8xb32_in1k.py", "../_base_/terms/logsum_kl.py"]
custom_imports = dict(imports=["mmkd"])

teacher_checkpoint = "checkpoints/resnet34.pth"
teacher = dict(config="mmpretrain::resnet/resnet34_8xb32_in1k.py", checkpoint=teacher_checkpoint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
