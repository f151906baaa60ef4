# FBKD (Zhang & Ma, ICLR 2021): R101-FPN teaches R50-FPN, 37.4 -> 39.3 mAP.
_base_ = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["mmkd"])

# MMDetection's weights of the teacher's config, wherever you keep them:
# --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "checkpoints/faster_rcnn_r101_fpn_2x_coco.pth"
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py",
            checkpoint=teacher_checkpoint,
        ),
        terms=dict(
            fbkd=dict(
                student="neck",
                teacher="neck",
                level=[0, 1, 2, 3, 4],
                loss=dict(type="mmkd.FBKDLoss"),
            )
        ),
    )
]
