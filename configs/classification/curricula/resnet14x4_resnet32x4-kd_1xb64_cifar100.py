# An assistant: ResNet-32x4 teaches a ResNet-14x4 by KD, as it would the student.
_base_ = "../cifar100/resnet8x4_resnet32x4-kd_1xb64_cifar100.py"

model = dict(backbone=dict(depth=14))
