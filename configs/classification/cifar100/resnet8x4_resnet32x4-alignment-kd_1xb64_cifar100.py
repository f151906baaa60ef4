# ... and in distillation; the paper's temperatures are 1 to 10, here 4:
# --cfg-options custom_hooks.0.terms.kd.loss.temperature=10
_base_ = "./resnet8x4_resnet32x4-alignment-plain_1xb64_cifar100.py"

model = dict(head=dict(loss=dict(loss_weight=0.1)))
config = "{{ fileDirname }}/resnet32x4_1xb64_cifar100.py"
teacher = dict(config=config, checkpoint=_base_.teacher_checkpoint)
loss = dict(type="mmkd.KDLoss", temperature=4.0)
terms = dict(kd=dict(student="head.fc", teacher="head.fc", loss=loss, weight=0.9))
custom_hooks = [
    dict(type="mmkd.DistillHook", teacher=teacher, terms=terms),
    _base_.alignment,
]
