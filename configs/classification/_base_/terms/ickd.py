# ICKD (Liu et al., ICCV 2021): weight 2.5 as in the authors' program.
terms = dict(
    ickd=dict(loss=dict(type="mmkd.ICKDLoss"), weight=2.5),
)
