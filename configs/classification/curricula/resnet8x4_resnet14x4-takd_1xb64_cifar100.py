# TAKD (Mirzadeh et al., AAAI 2020): ResNet-8x4 learns from the assistant of
# resnet14x4_resnet32x4-kd_1xb64_cifar100.py, with KD's weights as in CRD's framework.
_base_ = "../cifar100/resnet8x4_resnet32x4-kd_1xb64_cifar100.py"

assistant = dict(
    config="{{ fileDirname }}/resnet14x4_resnet32x4-kd_1xb64_cifar100.py",
    checkpoint="work_dirs/resnet14x4_resnet32x4-kd_1xb64_cifar100/epoch_240.pth",
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=assistant, terms=_base_.terms)]
