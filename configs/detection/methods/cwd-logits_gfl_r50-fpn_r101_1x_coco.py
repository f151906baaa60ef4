# CWD (Shu et al., ICCV 2021) on class logits, where each class is a channel: R101-FPN teaches
# R50-FPN.
_base_ = "mmdet::gfl/gfl_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["mmkd"])

# MMDetection's weights of the teacher's config, wherever you keep them:
# --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "checkpoints/gfl_r101_fpn_mstrain_2x_coco.pth"
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py",
            checkpoint=teacher_checkpoint,
        ),
        terms=dict(
            classes=dict(
                student="head.classes",
                teacher="head.classes",
                stride="all",
                loss=dict(type="mmkd.CWDLoss"),
                weight=5.0,
            )
        ),
    )
]
