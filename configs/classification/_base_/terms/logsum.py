# Miles & Mikolajczyk's ablations on ImageNet: the LogSum term alone. Another alpha:
# --cfg-options custom_hooks.0.terms.feature.loss.alpha=5.0
terms = dict(feature=dict(view="global", loss=dict(type="mmkd.LogSumLoss", alpha=4.0), weight=2.0))
