# Born again (Furlanello et al., ICML 2018): ResNet-18 learns from one that was trained alone, with
# KD's weights as in DKD's framework. Its seed must not be that one's, as it is not where none is
# given.
_base_ = "../imagenet/resnet18_resnet34-kd_8xb32_in1k.py"

equal = dict(
    config="mmpretrain::resnet/resnet18_8xb32_in1k.py",
    checkpoint="work_dirs/resnet18_8xb32_in1k/epoch_100.pth",
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=equal, terms=_base_.terms)]
