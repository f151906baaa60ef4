# ResNet-32x4 teaches ResNet-8x4 by its logits: 0.1 cross-entropy + 0.9 KD at temperature 4, CRD's
# setting. Another temperature: --cfg-options custom_hooks.0.terms.kd.loss.temperature=8
_base_ = "./resnet8x4_1xb64_cifar100.py"

model = dict(head=dict(loss=dict(loss_weight=0.1)))
teacher_checkpoint = "work_dirs/resnet32x4_1xb64_cifar100/epoch_240.pth"
teacher = dict(
    config="{{ fileDirname }}/resnet32x4_1xb64_cifar100.py", checkpoint=teacher_checkpoint
)
loss = dict(type="mmkd.KDLoss", temperature=4.0)
terms = dict(kd=dict(student="head.fc", teacher="head.fc", loss=loss, weight=0.9))
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=terms)]
