# How far ResNet-8x4's classifier is from ResNet-32x4's in plain training: Dua, Figures 1 and 6.
_base_ = "./resnet8x4_1xb64_cifar100.py"

optim_wrapper = dict(optimizer=dict(nesterov=True))
teacher_checkpoint = "work_dirs/resnet32x4_1xb64_cifar100/epoch_240.pth"
alignment = dict(type="mmkd.ClassifierAlignmentHook", checkpoint=teacher_checkpoint, begin=120)
custom_hooks = [alignment]
