# AT (Zagoruyko & Komodakis, ICLR 2017): every stage, weight 1000 as in the paper.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    at=dict(
        student=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        teacher=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        loss=dict(type="mmkd.ATLoss"),
        weight=1000.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
