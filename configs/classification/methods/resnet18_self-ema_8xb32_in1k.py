# ResNet-18 with its own moving average for a teacher (Tarvainen & Valpola, NeurIPS 2017): momentum,
# length of the rise, distance and weight as in the authors' program for a residual network on
# ImageNet, which rises in a curve by whole epochs and shows the teacher another augmentation.
_base_ = "mmpretrain::resnet/resnet18_8xb32_in1k.py"
custom_imports = dict(imports=["mmkd"])

terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.KDLoss", temperature=1.0),
        weight=10.0,
        schedule=dict(ramp=5),
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=dict(ema=0.9997), terms=terms)]
