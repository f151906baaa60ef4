# ReviewKD (Chen et al., CVPR 2021): R50-FPN teaches MobileNetV2-FPN, 29.47 -> 33.71 mAP. The
# teacher, 40.3 mAP, stands for theirs of 40.22; how their schedule differs is told in the config
# that this one is based on.
_base_ = "../faster_rcnn/faster-rcnn_mbv2-fpn_90k_coco.py"
custom_imports = dict(imports=["mmkd"])

# MMDetection's weights of the teacher's config, wherever you keep them:
# --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "checkpoints/faster_rcnn_r50_fpn_mstrain_3x_coco.pth"
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="mmdet::faster_rcnn/faster-rcnn_r50_fpn_ms-3x_coco.py",
            checkpoint=teacher_checkpoint,
        ),
        terms=dict(
            review=dict(
                student="neck",
                teacher="neck",
                levels=[0, 1, 2, 3, 4],
                loss=dict(type="mmkd.ReviewKDLoss"),
                weight=2.0,
            )
        ),
    )
]
