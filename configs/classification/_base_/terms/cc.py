# CC (Peng et al., ICCV 2019): weight 100 as in Hu's Knowledge-Distillation-Zoo, which has this
# kernel (gamma 0.4, P 2) and denominator; the paper's own belongs to another denominator.
terms = dict(
    cc=dict(loss=dict(type="mmkd.CCLoss"), weight=100.0),
)
