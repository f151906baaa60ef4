# NST (Huang & Wang, 2017): every stage, weight 50 in CRD's framework.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    nst=dict(
        student=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        teacher=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        loss=dict(type="mmkd.NSTLoss"),
        weight=50.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
