# RKD (Park et al., CVPR 2019): distances 25, angles 50, as in CRD's framework.
terms = dict(
    rkd=dict(loss=dict(type="mmkd.RKDLoss"), weight=1.0),
)
