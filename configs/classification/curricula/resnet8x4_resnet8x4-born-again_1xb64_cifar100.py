# Born again (Furlanello et al., ICML 2018): ResNet-8x4 learns from one that was trained alone, with
# KD's weights as in CRD's framework. Its seed must not be that one's, as it is not where none is
# given.
_base_ = "../cifar100/resnet8x4_resnet32x4-kd_1xb64_cifar100.py"

equal = dict(
    config="{{ fileDirname }}/../cifar100/resnet8x4_1xb64_cifar100.py",
    checkpoint="work_dirs/resnet8x4_1xb64_cifar100/epoch_240.pth",
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=equal, terms=_base_.terms)]
