# USKD (Yang et al., ICCV 2023): ResNet-8x4 without a teacher, factors as published for CIFAR-100.
_base_ = "../cifar100/resnet8x4_1xb64_cifar100.py"

taps = ["backbone.stages.1", "head.fc"]
terms = dict(
    uskd=dict(
        type="mmkd.USKDDistiller",
        student=taps,
        teacher=taps,
        target=0.1,
        others=0.1,
        weak=0.1,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=dict(student=True), terms=terms)]
