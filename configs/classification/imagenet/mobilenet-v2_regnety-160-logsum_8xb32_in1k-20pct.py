# RegNetY-160 teaches MobileNetV2 by LogSum: a pair of Miles & Mikolajczyk, Table 1.
_base_ = ["./mobilenet-v2_8xb32_in1k-20pct.py", "../_base_/terms/logsum.py"]

teacher_checkpoint = "checkpoints/regnety-160.pth"
teacher = dict(config="{{ fileDirname }}/regnety-160_8xb32_in1k.py", checkpoint=teacher_checkpoint)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms)]
