# AFD (Ji et al., AAAI 2021): weight 200, the paper's for CIFAR-100.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    afd=dict(
        type="mmkd.AFDDistiller",
        student=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        teacher=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        weight=200.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
