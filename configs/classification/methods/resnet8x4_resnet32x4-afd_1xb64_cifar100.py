# AFD (Ji et al., AAAI 2021): every block of both networks, weight 200 beside 0.9 of KD at T 4, as
# in the authors' program on CIFAR-100.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

terms = dict(
    afd=dict(
        type="mmkd.AFDDistiller",
        student=[f"backbone.stages.{stage}.0" for stage in range(3)],
        teacher=[f"backbone.stages.{stage}.{block}" for stage in range(3) for block in range(5)],
        weight=200.0,
    ),
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.KDLoss", temperature=4.0),
        weight=0.9,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
