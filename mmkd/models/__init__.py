"""Networks and heads that the ecosystem lacks, usable in any config."""

from mmkd.models import lazy
from mmkd.models.cifar_bottleneck_resnet import CIFARBottleneckResNet
from mmkd.models.cifar_mobilenet_v2 import CIFARMobileNetV2
from mmkd.models.cifar_resnet import CIFARResNet
from mmkd.models.cifar_shufflenet_v1 import CIFARShuffleNetV1
from mmkd.models.cifar_shufflenet_v2 import CIFARShuffleNetV2
from mmkd.models.cifar_vgg import CIFARVGG
from mmkd.models.wide_resnet import WideResNet

__all__ = [
    "CIFARVGG",
    "CIFARBottleneckResNet",
    "CIFARMobileNetV2",
    "CIFARResNet",
    "CIFARShuffleNetV1",
    "CIFARShuffleNetV2",
    "WideResNet",
    "lazy",
]
