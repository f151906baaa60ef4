# ReviewKD (Chen et al., CVPR 2021): weight 1, as in DKD's framework, whose rise of an epoch is none
# and whose maps of both sides are those before a stage's last ReLU.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    review=dict(
        student=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        teacher=["backbone.layer1", "backbone.layer2", "backbone.layer3", "backbone.layer4"],
        loss=dict(type="mmkd.ReviewKDLoss", inner=512, pooled=True),
        weight=1.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
