# CRD (Tian et al., ICLR 2020): weight 0.8, 16,384 others of other classes, as in the paper.
# The authors' program draws them without replacement.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    crd=dict(
        type="mmkd.CRDDistiller",
        num_images=50_000,
        weight=0.8,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
