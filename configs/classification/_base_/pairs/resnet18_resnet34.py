# ResNet-18 with ResNet-34 for a teacher; a method's config adds the terms.
_base_ = "mmpretrain::resnet/resnet18_8xb32_in1k.py"
custom_imports = dict(imports=["mmkd"])

teacher_checkpoint = "checkpoints/resnet34.pth"
teacher = dict(config="mmpretrain::resnet/resnet34_8xb32_in1k.py", checkpoint=teacher_checkpoint)
