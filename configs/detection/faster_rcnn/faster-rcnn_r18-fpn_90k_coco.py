# ResNet-18-FPN alone: the baseline of faster-rcnn_r18-fpn_r101-distill_90k_coco.py.
_base_ = "./faster-rcnn_r50-fpn_90k_coco.py"
custom_imports = dict(imports=["mmkd"])

model = dict(
    backbone=dict(depth=18, init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet18")),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
