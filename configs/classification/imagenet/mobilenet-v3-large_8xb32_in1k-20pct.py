# MobileNetV3-Large alone on a fifth of ImageNet: Miles & Mikolajczyk, Table 1.
_base_ = [
    "mmpretrain::_base_/models/mobilenet_v3/mobilenet_v3_large_imagenet.py",
    "../_base_/imagenet_20pct.py",
]
