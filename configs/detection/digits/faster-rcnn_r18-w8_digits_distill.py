# The same student, distilled by the defaults.
_base_ = "./faster-rcnn_r18-w8_digits.py"

custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        # Another file: --cfg-options custom_hooks.0.teacher.checkpoint=...
        teacher=dict(
            config="{{ fileDirname }}/faster-rcnn_r18-w16_digits.py",
            checkpoint="work_dirs/faster-rcnn_r18-w16_digits/epoch_6.pth",
        ),
    )
]
