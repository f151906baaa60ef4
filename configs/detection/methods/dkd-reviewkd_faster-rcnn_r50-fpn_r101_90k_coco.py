# DKD with ReviewKD (Zhao et al., CVPR 2022): R101-FPN teaches R50-FPN.
_base_ = "../faster_rcnn/faster-rcnn_r50-fpn_90k_coco.py"
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
        terms=dict(
            dkd=dict(
                student="roi.classes",
                teacher="roi.classes",
                loss=dict(type="mmkd.DKDLoss", of="regions", beta=0.25, temperature=1.0),
            ),
            review=dict(
                student="neck",
                teacher="neck",
                levels=[0, 1, 2, 3, 4],
                loss=dict(type="mmkd.ReviewKDLoss"),
                weight=2.0,
            ),
        ),
    )
]
