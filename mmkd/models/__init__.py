"""Networks and heads that the ecosystem lacks, usable in any config."""

from mmkd.models import lazy
from mmkd.models.cifar_resnet import CIFARResNet

__all__ = ["CIFARResNet", "lazy"]
