# Backbone and neck distilled side by side for longer, and what goes on inside recorded: see
# docs/dynamics.md.
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
max_epochs = 9
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type="CosineAnnealingLR",
        T_max=max_epochs,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(checkpoint=dict(interval=max_epochs))
