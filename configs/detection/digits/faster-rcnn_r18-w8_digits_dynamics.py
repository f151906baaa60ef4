# Backbone and neck distilled side by side, and what goes on inside recorded: see docs/dynamics.md.
_base_ = "./faster-rcnn_r18-w8_digits.py"

share = dict(share=0.25)
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="{{ fileDirname }}/faster-rcnn_r18-w16_digits.py",
            checkpoint="work_dirs/faster-rcnn_r18-w16_digits/epoch_6.pth",
        ),
        terms=dict(
            backbone=dict(weight=share),
            mlp=dict(projector=dict(type="mmkd.MLPProjector"), weight=share),
            neck=dict(student="neck", teacher="neck", loss=dict(type="mmkd.CWDLoss"), weight=share),
        ),
    ),
    dict(type="mmkd.DynamicsHook", interval=1),
]
