# FT (Kim et al., NeurIPS 2018): 5 epochs of the paraphraser, then weight 500, the one of CIFAR.
# Their program has neither BatchNorm nor a squared distance in the paraphraser (L1).
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    ft=dict(
        type="mmkd.FTDistiller",
        paraphrase=5 * 5005,
        weight=500.0,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
