# Miles & Mikolajczyk on ImageNet: pooled features, a linear projector, BatchNorm, LogSum with
# weight 2; and the KL divergence of the logits at temperature 1.
terms = dict(
    feature=dict(view="global", loss=dict(type="mmkd.LogSumLoss", alpha=4.0), weight=2.0),
    kl=dict(student="head.fc", teacher="head.fc", loss=dict(type="mmkd.KDLoss", temperature=1.0)),
)
