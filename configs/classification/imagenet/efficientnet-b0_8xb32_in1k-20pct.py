# EfficientNet-B0 alone on a fifth of ImageNet: Miles & Mikolajczyk, Table 1.
_base_ = ["mmpretrain::_base_/models/efficientnet_b0.py", "../_base_/imagenet_20pct.py"]
