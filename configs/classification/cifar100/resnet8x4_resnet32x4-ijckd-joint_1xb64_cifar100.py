# IJCKD with a joint classifier of its own, trained on both networks' features.
_base_ = "./resnet8x4_resnet32x4-ijckd_1xb64_cifar100.py"

model = dict(head=dict(freeze_classifier=False))
joint = dict(
    student="head.connector",
    view="global",
    projector=dict(type="mmkd.IdentityProjector"),
    normalizer=dict(type="mmkd.IdentityNormalizer"),
    loss=dict(type="mmkd.JointClassifierLoss"),
    student_classifier="head.fc",
)
terms = dict(map=_base_.terms.map, joint=joint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
