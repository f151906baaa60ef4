# The same student, distilled by the defaults.
_base_ = "./faster-rcnn_r18-w8_bccd.py"
custom_imports = dict(imports=["mmkd"])

# Another file: --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "work_dirs/faster-rcnn_r18-w16_bccd/epoch_20.pth"
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="{{ fileDirname }}/faster-rcnn_r18-w16_bccd.py", checkpoint=teacher_checkpoint
        ),
    )
]
