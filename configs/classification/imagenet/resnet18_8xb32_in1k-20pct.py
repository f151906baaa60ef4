# ResNet-18 alone on a fifth of ImageNet.
_base_ = ["mmpretrain::_base_/models/resnet18.py", "../_base_/imagenet_20pct.py"]
