# FSP (Yim et al., CVPR 2017): from stage to stage, weight 50 in CRD's framework, which trains it
# first and alone; here beside the task.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    fsp=dict(
        student=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        teacher=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        loss=dict(type="mmkd.FSPLoss"),
        weight=50.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
