# The student: 4 to 8 channels.
_base_ = ["./_base_/data.py", "./_base_/runtime.py"]

model = dict(
    type="ImageClassifier",
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(type="mmkd.CIFARResNet", depth=8, widths=(4, 4, 4, 8)),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=_base_.num_classes,
        in_channels=8,
        loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
)
