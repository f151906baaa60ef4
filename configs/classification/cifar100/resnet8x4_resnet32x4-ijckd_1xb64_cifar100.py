# ResNet-32x4 teaches ResNet-8x4 by IJCKD, with the teacher's classifier as the ideal joint one.
_base_ = ["./resnet8x4_1xb64_cifar100.py", "../_base_/terms/ijckd.py"]

model = dict(neck=None, head=dict(type="mmkd.ConnectorClsHead", teacher_channels=256))
teacher_checkpoint = "work_dirs/resnet32x4_1xb64_cifar100/epoch_240.pth"
teacher = dict(
    config="{{ fileDirname }}/resnet32x4_1xb64_cifar100.py", checkpoint=teacher_checkpoint
)
reused = {"head.fc": "head.fc"}
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms, inherit=reused)]
