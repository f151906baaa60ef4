# PKT (Passalis & Tefas, ECCV 2018): weight 30,000 in CRD's framework.
terms = dict(
    pkt=dict(loss=dict(type="mmkd.PKTLoss"), weight=30000.0),
)
