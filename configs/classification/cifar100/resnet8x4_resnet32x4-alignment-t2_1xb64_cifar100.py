# ... and in distillation at temperature 2.
_base_ = "./resnet8x4_resnet32x4-alignment-t1_1xb64_cifar100.py"

distill, alignment = _base_.custom_hooks
distill.terms.kd.loss.temperature = 2.0
custom_hooks = [distill, alignment]
