# AFD (Ji et al., AAAI 2021): weight 200 beside 0.9 of KD at T 4, the authors' program on CIFAR-100;
# that has all blocks for levels, here it is the stages.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    afd=dict(
        type="mmkd.AFDDistiller",
        student=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        teacher=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        weight=200.0,
    ),
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.KDLoss", temperature=4.0),
        weight=0.9,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
