# CC (Peng et al., ICCV 2019). The weight is ours: the paper's belongs to another denominator.
terms = dict(
    cc=dict(loss=dict(type="mmkd.CCLoss"), weight=1.0),
)
