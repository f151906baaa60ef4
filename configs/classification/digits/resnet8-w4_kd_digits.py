# The same student, distilled by its logits: half cross-entropy, half KD.
_base_ = "./resnet8-w4_logsum_digits.py"

model = dict(head=dict(loss=dict(loss_weight=0.5)))
custom_hooks = _base_.custom_hooks
custom_hooks[0].terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.KDLoss", temperature=4.0),
        weight=0.5,
    )
)
