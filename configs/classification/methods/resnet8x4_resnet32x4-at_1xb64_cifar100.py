# AT (Zagoruyko & Komodakis, ICLR 2017): every stage, weight 1000 as in the paper.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    at=dict(
        student=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        teacher=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        loss=dict(type="mmkd.ATLoss"),
        weight=1000.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
