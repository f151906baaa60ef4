# MobileNetV2 alone on a fifth of ImageNet: Miles & Mikolajczyk, Table 1.
_base_ = ["mmpretrain::_base_/models/mobilenet_v2_1x.py", "../_base_/imagenet_20pct.py"]
