# TAKD (Mirzadeh et al., AAAI 2020): ResNet-18 learns from the assistant of
# resnet26_resnet34-kd_8xb32_in1k.py, with KD's weights as in DKD's framework.
_base_ = "../imagenet/resnet18_resnet34-kd_8xb32_in1k.py"

assistant = dict(
    config="{{ fileDirname }}/resnet26_resnet34-kd_8xb32_in1k.py",
    checkpoint="work_dirs/resnet26_resnet34-kd_8xb32_in1k/epoch_100.pth",
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=assistant, terms=_base_.terms)]
