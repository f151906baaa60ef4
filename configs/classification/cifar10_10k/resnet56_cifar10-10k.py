# A strong teacher: He et al.'s ResNet-56, whose published weights reach 93.6 % on CIFAR-10's test
# set (akamaster/pytorch_resnet_cifar10), in that program's normalisation.
_base_ = ["./_base_/data.py", "../_base_/small_runtime.py"]

model = dict(
    type="ImageClassifier",
    data_preprocessor=dict(
        num_classes=_base_.num_classes,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    backbone=dict(type="mmkd.CIFARResNet", depth=56, shortcut="pad"),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=_base_.num_classes,
        in_channels=64,
        loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
)
