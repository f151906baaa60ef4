# ResNet-50 teaches MobileNetV2 by the projector ensemble: Chen et al., Table 4.
_base_ = ["./mobilenet-v2_1xb64_cifar100.py", "../_base_/terms/ensemble.py"]

teacher_checkpoint = "work_dirs/resnet50_1xb64_cifar100/epoch_240.pth"
teacher = dict(config="{{ fileDirname }}/resnet50_1xb64_cifar100.py", checkpoint=teacher_checkpoint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
