# ResNet-32x4 teaches ResNet-8x4 by SimKD: the connected map alone, below the teacher's classifier.
_base_ = ["./resnet8x4_1xb64_cifar100.py", "../_base_/terms/simkd.py"]

ce = dict(type="CrossEntropyLoss", loss_weight=0.0)
model = dict(neck=None, head=dict(type="mmkd.ConnectorClsHead", teacher_channels=256, loss=ce))
teacher_checkpoint = "work_dirs/resnet32x4_1xb64_cifar100/epoch_240.pth"
teacher = dict(
    config="{{ fileDirname }}/resnet32x4_1xb64_cifar100.py", checkpoint=teacher_checkpoint
)
reused = {"head.fc": "head.fc"}
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms, inherit=reused)]
