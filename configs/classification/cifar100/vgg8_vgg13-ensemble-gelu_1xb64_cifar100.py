# The projector ensemble with GELU instead of ReLU: Chen et al., Table 5.
_base_ = "./vgg8_vgg13-ensemble_1xb64_cifar100.py"

hook = _base_.custom_hooks[0]
hook.terms.feature.projector.activation = "gelu"
custom_hooks = [hook]
