# ReviewKD (Chen et al., CVPR 2021): weight 5 after a rise of 20 epochs (there in steps, here a
# line), as in DKD's framework, whose teacher's maps are those before a stage's last ReLU.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    review=dict(
        student=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        teacher=["backbone.stages.0", "backbone.stages.1", "backbone.stages.2"],
        loss=dict(type="mmkd.ReviewKDLoss", inner=256, pooled=True),
        weight=5.0,
        schedule=dict(ramp=20),
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
