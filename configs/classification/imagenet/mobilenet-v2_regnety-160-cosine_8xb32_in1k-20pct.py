# The same with unit vectors, whose distance is 1 - cosine: Miles & Mikolajczyk, Table 1.
_base_ = "./mobilenet-v2_regnety-160-mse-batch_8xb32_in1k-20pct.py"

hook = _base_.custom_hooks[0]
hook.terms.feature.normalizer = dict(type="mmkd.L2Normalizer")
hook.terms.feature.loss = dict(type="mmkd.L2Loss")
custom_hooks = [hook]
