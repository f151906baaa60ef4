# ResNet-50 teaches MobileNet v1 by the projector ensemble: Chen et al., Table 1, pair (b).
_base_ = ["./mobilenet-v1_8xb32_in1k.py", "../_base_/terms/ensemble.py"]

teacher_checkpoint = "checkpoints/resnet50.pth"
teacher = dict(config="mmpretrain::resnet/resnet50_8xb32_in1k.py", checkpoint=teacher_checkpoint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
