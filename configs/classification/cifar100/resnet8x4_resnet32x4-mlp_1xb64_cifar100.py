# One projector of two layers instead of three of one: Chen et al., Figure 4. Three or four layers:
# --cfg-options custom_hooks.0.terms.feature.projector.num_layers=3
_base_ = "./resnet8x4_resnet32x4-ensemble_1xb64_cifar100.py"

hook = _base_.custom_hooks[0]
hook.terms.feature.projector = dict(
    type="mmkd.MLPProjector", hidden_channels=None, num_layers=2, activate_output=True
)
custom_hooks = [hook]
