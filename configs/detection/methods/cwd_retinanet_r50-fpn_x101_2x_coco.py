# CWD (Shu et al., ICCV 2021): X101-FPN teaches R50-FPN on five levels.
_base_ = "mmdet::retinanet/retinanet_r50_fpn_2x_coco.py"
custom_imports = dict(imports=["mmkd"])

# MMDetection's weights of the teacher's config, wherever you keep them:
# --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "checkpoints/retinanet_x101_64x4d_fpn_1x_coco.pth"
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py",
            checkpoint=teacher_checkpoint,
        ),
        terms=dict(
            cwd=dict(
                student="neck",
                teacher="neck",
                level=[0, 1, 2, 3, 4],
                loss=dict(type="mmkd.CWDLoss"),
                weight=10.0,
            )
        ),
    )
]
