# The same with group normalisation: Miles & Mikolajczyk, Table 1.
_base_ = "./mobilenet-v3-large_vit-base-p16-mse-batch_8xb32_in1k-20pct.py"

hook = _base_.custom_hooks[0]
hook.terms.feature.normalizer = dict(type="mmkd.GroupNormalizer", num_groups=16)
custom_hooks = [hook]
