# USKD (Yang et al., ICCV 2023): ResNet-18 without a teacher, factors as published for ImageNet.
_base_ = "mmpretrain::resnet/resnet18_8xb32_in1k.py"
custom_imports = dict(imports=["mmkd"])

taps = ["backbone.layer3", "head.fc"]
terms = dict(
    uskd=dict(
        type="mmkd.USKDDistiller",
        student=taps,
        teacher=taps,
        target=1.0,
        others=0.1,
        weak=0.005,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=dict(student=True), terms=terms)]
