# AFD (Ji et al., AAAI 2021): every block of both networks, weight 200 beside 0.9 of KD at T 4, as
# in the authors' program on CIFAR-100.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    afd=dict(
        type="mmkd.AFDDistiller",
        student=[f"backbone.layer{stage}.{block}" for stage in range(1, 5) for block in range(2)],
        teacher=[
            f"backbone.layer{stage}.{block}"
            for stage, blocks in ((1, 3), (2, 4), (3, 6), (4, 3))
            for block in range(blocks)
        ],
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
