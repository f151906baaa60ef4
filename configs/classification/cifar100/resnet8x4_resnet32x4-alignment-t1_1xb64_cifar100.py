# ... and in distillation at temperature 1.
_base_ = "./resnet8x4_resnet32x4-alignment-plain_1xb64_cifar100.py"

temperature = 1.0
model = dict(head=dict(loss=dict(loss_weight=0.1)))
config = "{{ fileDirname }}/resnet32x4_1xb64_cifar100.py"
teacher = dict(config=config, checkpoint=_base_.teacher_checkpoint)
loss = dict(type="mmkd.KDLoss", temperature=temperature)
terms = dict(kd=dict(student="head.fc", teacher="head.fc", loss=loss, weight=0.9))
custom_hooks = [
    dict(type="mmkd.DistillHook", teacher=teacher, terms=terms),
    _base_.alignment,
]
