# FitNet (Romero et al., ICLR 2015): the middle hint, weight 100 and a 1x1
# convolution with BatchNorm and ReLU, as in CRD's framework.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    hint=dict(
        student="backbone.stages.1",
        teacher="backbone.stages.1",
        normalizer=dict(type="mmkd.IdentityNormalizer"),
        loss=dict(type="mmkd.MSELoss"),
        view="dense",
        projector=dict(type="mmkd.ConvConnector", layout="1x1"),
        weight=100.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
