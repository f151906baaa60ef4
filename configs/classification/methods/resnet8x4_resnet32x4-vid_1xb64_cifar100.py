# VID (Ahn et al., CVPR 2019): every stage, weight 1 in CRD's framework.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    vid=dict(
        student=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        teacher=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        loss=dict(type="mmkd.VIDLoss"),
        weight=1.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
