# SP (Tung & Mori, ICCV 2019): weight 3000 as in the paper.
terms = dict(
    sp=dict(loss=dict(type="mmkd.SPLoss"), weight=3000.0),
)
