# RTMDet's recipe: 1x1, BatchNorm without affine parameters, CWD; it ends 20 epochs before the end.
_base_ = "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py"
custom_imports = dict(imports=["mmkd"])

# MMDetection's weights of the teacher's config, wherever you keep them:
# --cfg-options custom_hooks.2.teacher.checkpoint=...
teacher_checkpoint = "checkpoints/rtmdet_s_8xb32-300e_coco.pth"
# Beside RTMDet's own hooks.
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py",
            checkpoint=teacher_checkpoint,
        ),
        terms=dict(
            cwd=dict(
                student="neck",
                teacher="neck",
                level=[0, 1, 2],
                projector=dict(type="mmkd.LinearProjector"),
                normalizer=dict(type="mmkd.BatchNormalizer"),
                loss=dict(type="mmkd.CWDLoss"),
                schedule=dict(end=280),
            )
        ),
    ),
]
