# LogSum, and the logits at temperature 1.
_base_ = "./resnet8-w4_logsum_digits.py"

custom_hooks = _base_.custom_hooks
custom_hooks[0].terms = dict(
    feature=dict(view="global"),
    kl=dict(student="head.fc", teacher="head.fc", loss=dict(type="mmkd.KDLoss", temperature=1.0)),
)
