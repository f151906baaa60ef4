# AFD (Ji et al., AAAI 2021): weight 200, the paper's for CIFAR-100.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    afd=dict(
        type="mmkd.AFDDistiller",
        student=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        teacher=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        weight=200.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
