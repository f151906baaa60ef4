# PKT (Passalis & Tefas, ECCV 2018): weight 30,000 in CRD's framework.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

terms = dict(
    pkt=dict(loss=dict(type="mmkd.PKTLoss"), weight=30000.0),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
