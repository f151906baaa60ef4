_base_ = "./faster_rcnn_mobilenetv2_digits.py"

custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="{{ fileDirname }}/faster_rcnn_r18_digits.py",
            checkpoint="work_dirs/faster_rcnn_r18_digits/epoch_8.pth",
        ),
    )
]
