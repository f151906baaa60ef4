# MobileNet v1, timm's, with the ReLU of the projector ensemble's authors (timm has ReLU6).
_base_ = [
    "mmpretrain::_base_/datasets/imagenet_bs32.py",
    "mmpretrain::_base_/schedules/imagenet_bs256.py",
    "mmpretrain::_base_/default_runtime.py",
]
custom_imports = dict(imports=["mmkd"])

model = dict(
    type="ImageClassifier",
    backbone=dict(type="TIMMBackbone", model_name="mobilenetv1_100", act_layer="relu"),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        in_channels=1024,
        loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
        topk=(1, 5),
    ),
)
