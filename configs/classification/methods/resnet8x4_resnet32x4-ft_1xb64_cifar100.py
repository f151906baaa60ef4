# FT (Kim et al., NeurIPS 2018): 30 epochs of the paraphraser, then weight 500.
# Their program has neither BatchNorm nor a squared distance in the paraphraser (L1).
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    ft=dict(
        type="mmkd.FTDistiller",
        paraphrase=30 * 782,
        weight=500.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
