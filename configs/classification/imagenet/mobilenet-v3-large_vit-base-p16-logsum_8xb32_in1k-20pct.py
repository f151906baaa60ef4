# ViT-B/16 teaches MobileNetV3-Large by LogSum: Miles & Mikolajczyk, Table 3.
_base_ = ["./mobilenet-v3-large_8xb32_in1k-20pct.py", "../_base_/terms/logsum.py"]

teacher_checkpoint = "checkpoints/vit-base-p16.pth"
config = "mmpretrain::vision_transformer/vit-base-p16_32xb128-mae_in1k.py"
teacher = dict(config=config, checkpoint=teacher_checkpoint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
