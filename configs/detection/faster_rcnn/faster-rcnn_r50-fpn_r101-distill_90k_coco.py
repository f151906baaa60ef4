# R101-FPN teaches R50-FPN.
_base_ = "./faster-rcnn_r50-fpn_90k_coco.py"
custom_imports = dict(imports=["mmkd"])

# MMDetection's weights of the teacher's config, wherever you keep them:
# --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "checkpoints/faster_rcnn_r101_fpn_mstrain_3x_coco.pth"
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="mmdet::faster_rcnn/faster-rcnn_r101_fpn_ms-3x_coco.py",
            checkpoint=teacher_checkpoint,
        ),
        # The paper's: the backbone's last stage, at weight 1. Without this line, mmkd's default.
        terms=dict(backbone=dict(level=-1, weight=1.0)),
    )
]
