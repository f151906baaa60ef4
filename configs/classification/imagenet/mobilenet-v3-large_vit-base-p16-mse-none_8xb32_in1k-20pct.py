# The same with features as they are.
_base_ = "./mobilenet-v3-large_vit-base-p16-mse-batch_8xb32_in1k-20pct.py"

hook = _base_.custom_hooks[0]
hook.terms.feature.normalizer = dict(type="mmkd.IdentityNormalizer")
custom_hooks = [hook]
