# VID (Ahn et al., CVPR 2019): every stage, weight 1 in CRD's framework.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    vid=dict(
        student=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        teacher=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        loss=dict(type="mmkd.VIDLoss"),
        weight=1.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
