# NKD (Yang et al., ICCV 2023): gamma 1.5, T 1, the authors' program on ImageNet.
terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.NKDLoss"),
        weight=1.0,
    ),
)
