# VGG-13 teaches VGG-8 by the projector ensemble: Chen et al., Table 4.
_base_ = ["./vgg8_1xb64_cifar100.py", "../_base_/terms/ensemble.py"]

teacher_checkpoint = "work_dirs/vgg13_1xb64_cifar100/epoch_240.pth"
teacher = dict(config="{{ fileDirname }}/vgg13_1xb64_cifar100.py", checkpoint=teacher_checkpoint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
