# The same student, distilled by an ensemble of three projectors. The paper's weight, 25, is too
# much for 60 steps.
_base_ = "./resnet8-w4_logsum_digits.py"

custom_hooks = _base_.custom_hooks
custom_hooks[0].terms = dict(
    feature=dict(
        view="global",
        projector=dict(type="mmkd.ProjectorEnsemble", num_projectors=3),
        normalizer=dict(type="mmkd.IdentityNormalizer"),
        loss=dict(type="mmkd.DirectionAlignmentLoss"),
        weight=5.0,
    )
)
