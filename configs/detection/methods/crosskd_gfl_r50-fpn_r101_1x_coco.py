# CrossKD (Wang et al., CVPR 2024): R50-FPN through the rest of the head of R101-FPN.
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
                student="bbox_head.cls_convs.2*",
                teacher="bbox_head.cls_convs.2*",
                stride="all",
                teacher_classifier=["bbox_head.cls_convs.3", "bbox_head.gfl_cls"],
                loss=dict(type="mmkd.CrossKDLoss", compare="classes"),
                weight=1.0,
            ),
            boxes=dict(
                student="bbox_head.reg_convs.2*",
                teacher="bbox_head.reg_convs.2*",
                stride="all",
                teacher_classifier=[
                    "bbox_head.reg_convs.3",
                    "bbox_head.gfl_reg",
                    "bbox_head.scales.{level}",
                ],
                loss=dict(type="mmkd.CrossKDLoss", compare="bins"),
                weight=4.0,
            ),
        ),
    )
]
