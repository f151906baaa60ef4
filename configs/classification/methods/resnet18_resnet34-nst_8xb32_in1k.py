# NST (Huang & Wang, 2017): every stage, weight 50 in CRD's framework.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    nst=dict(
        student=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        teacher=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        loss=dict(type="mmkd.NSTLoss"),
        weight=50.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
