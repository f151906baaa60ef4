# The student: 78 thousand parameters, about a quarter of a stride-1 ResNet-8's work.
_base_ = ["./_base_/data.py", "../_base_/small_runtime.py"]

model = dict(
    type="ImageClassifier",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(type="mmkd.CIFARResNet", depth=8, stem_stride=2),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=_base_.num_classes,
        in_channels=64,
        loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
)
