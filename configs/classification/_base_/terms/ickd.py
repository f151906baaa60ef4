# ICKD (Liu et al., ICCV 2021): weight 2.5, after a 1x1 convolution and BatchNorm of the student's
# map at equal widths too, as in the authors' program for CIFAR-100.
terms = dict(
    ickd=dict(
        loss=dict(type="mmkd.ICKDLoss"),
        projector=dict(type="mmkd.ConvConnector", layout="1x1", activate_output=False),
        weight=2.5,
    ),
)
