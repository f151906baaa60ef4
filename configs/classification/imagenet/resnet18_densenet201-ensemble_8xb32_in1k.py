# DenseNet-201 teaches ResNet-18 by the projector ensemble: Chen et al., Table 1, pair (c).
_base_ = ["mmpretrain::resnet/resnet18_8xb32_in1k.py", "../_base_/terms/ensemble.py"]
custom_imports = dict(imports=["mmkd"])

teacher_checkpoint = "checkpoints/densenet201.pth"
teacher = dict(
    config="mmpretrain::densenet/densenet201_4xb256_in1k.py", checkpoint=teacher_checkpoint
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
