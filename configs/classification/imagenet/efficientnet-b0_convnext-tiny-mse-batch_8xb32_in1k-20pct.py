# ConvNeXt-T teaches EfficientNet-B0, features batch-normalised: Miles & Mikolajczyk, Table 1.
_base_ = ["./efficientnet-b0_8xb32_in1k-20pct.py", "../_base_/terms/mse.py"]

teacher_checkpoint = "checkpoints/convnext-tiny.pth"
teacher = dict(
    config="mmpretrain::convnext/convnext-tiny_32xb128_in1k.py", checkpoint=teacher_checkpoint
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
