# FT (Kim et al., NeurIPS 2018): 30 epochs of the paraphraser, then weight 500.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    ft=dict(
        type="mmkd.FTDistiller",
        paraphrase=30 * 781,
        weight=500.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
