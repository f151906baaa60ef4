# ResNet-8x4 with ResNet-32x4 for a teacher; a method's config adds the terms.
_base_ = "../../cifar100/resnet8x4_1xb64_cifar100.py"

teacher_checkpoint = "work_dirs/resnet32x4_1xb64_cifar100/epoch_240.pth"
teacher = dict(
    config="{{ fileDirname }}/../../cifar100/resnet32x4_1xb64_cifar100.py",
    checkpoint=teacher_checkpoint,
)
