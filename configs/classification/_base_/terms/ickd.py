# ICKD (Liu et al., ICCV 2021): weight 2.5, after a 1x1 convolution and BatchNorm of the student's
# map at equal widths too, as in the authors' program for CIFAR-100. Their file for ImageNet divides
# by the images twice (weight 1 there is 1/256 here), and trains 30 epochs.
terms = dict(
    ickd=dict(
        loss=dict(type="mmkd.ICKDLoss"),
        projector=dict(type="mmkd.ConvConnector", layout="1x1", activate_output=False),
        weight=2.5,
    ),
)
