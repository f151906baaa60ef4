# FSP (Yim et al., CVPR 2017): from stage to stage, without the stem, beside the task. CRD's
# framework names the weight 50 and does not use it: it trains by FSP first and alone, the stem with
# the stages. In two stages it is the config named fsp-first.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    fsp=dict(
        student=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        teacher=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        loss=dict(type="mmkd.FSPLoss"),
        weight=50.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
