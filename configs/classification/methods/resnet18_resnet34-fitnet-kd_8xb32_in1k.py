# FitNet (Romero et al., ICLR 2015), second stage: KD at T 3 of the student whose first half has
# learned the hint. Its weight falls from 4 to 1; in the paper along a line, here half a cosine.
# The paper's KD has no T^2, by which these are divided.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

load_from = "work_dirs/resnet18_resnet34-fitnet-hint_8xb32_in1k/epoch_12.pth"
logits = dict(student="head.fc", teacher="head.fc", loss=dict(type="mmkd.KDLoss", temperature=3.0))
terms = dict(
    kd=dict(logits, weight=1 / 9),
    kd_early=dict(logits, weight=3 / 9, schedule=dict(end=100, decay=100)),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
