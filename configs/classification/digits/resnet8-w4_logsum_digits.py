# The same student, distilled: linear projector, BatchNorm and LogSum on the pooled last map.
_base_ = "./resnet8-w4_digits.py"

custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        # Another file: --cfg-options custom_hooks.0.teacher.checkpoint=...
        teacher=dict(
            config="{{ fileDirname }}/resnet8_digits.py",
            checkpoint="work_dirs/resnet8_digits/epoch_4.pth",
        ),
        terms=dict(feature=dict(view="global")),
        probe_size=8,
    )
]
