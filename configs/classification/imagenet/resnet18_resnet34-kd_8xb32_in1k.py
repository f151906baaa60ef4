# ResNet-34 teaches ResNet-18 by its logits: 0.5 cross-entropy + 0.5 KD at temperature 1, as DKD's
# framework has it.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

model = dict(head=dict(loss=dict(loss_weight=0.5)))
loss = dict(type="mmkd.KDLoss", temperature=1.0)
terms = dict(kd=dict(student="head.fc", teacher="head.fc", loss=loss, weight=0.5))
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
