# ResNet-56 teaches ResNet-20 by LogSum, second view turned: Miles & Mikolajczyk, Table 4.
_base_ = [
    "./resnet20_1xb64_cifar100.py",
    "../_base_/terms/logsum_mlp.py",
    "../_base_/cifar100_views.py",
]

data_preprocessor = dict(type="mmkd.MultiViewPreprocessor")
train_dataloader = dict(dataset=dict(pipeline=_base_.rotation_views))
teacher_checkpoint = "work_dirs/resnet56_1xb64_cifar100/epoch_240.pth"
teacher = dict(config="{{ fileDirname }}/resnet56_1xb64_cifar100.py", checkpoint=teacher_checkpoint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
