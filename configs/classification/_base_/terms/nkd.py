# NKD (Yang et al., ICCV 2023): gamma 1.5, T 1, as in the paper.
terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.NKDLoss"),
        weight=1.0,
    ),
)
