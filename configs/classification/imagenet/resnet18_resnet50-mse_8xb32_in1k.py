# ResNet-50 teaches ResNet-18 without LogSum: Miles & Mikolajczyk, Table 3.
_base_ = ["mmpretrain::resnet/resnet18_8xb32_in1k.py", "../_base_/terms/mse.py"]
custom_imports = dict(imports=["mmkd"])

teacher_checkpoint = "checkpoints/resnet50.pth"
teacher = dict(config="mmpretrain::resnet/resnet50_8xb32_in1k.py", checkpoint=teacher_checkpoint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
