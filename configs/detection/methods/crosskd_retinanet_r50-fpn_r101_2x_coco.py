# CrossKD (Wang et al., CVPR 2024): R50-FPN through the rest of the head of R101-FPN, 37.4 -> 39.7.
_base_ = "mmdet::retinanet/retinanet_r50_fpn_2x_coco.py"
custom_imports = dict(imports=["mmkd"])

# MMDetection's weights of the teacher's config, wherever you keep them:
# --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "checkpoints/retinanet_r101_fpn_2x_coco.pth"
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="mmdet::retinanet/retinanet_r101_fpn_2x_coco.py",
            checkpoint=teacher_checkpoint,
        ),
        terms=dict(
            classes=dict(
                student="bbox_head.cls_convs.2*",
                teacher="bbox_head.cls_convs.2*",
                stride="all",
                teacher_classifier=["bbox_head.cls_convs.3", "bbox_head.retina_cls"],
                loss=dict(type="mmkd.CrossKDLoss", compare="classes"),
                weight=1.0,
            ),
            boxes=dict(
                student="bbox_head.reg_convs.2*",
                teacher="bbox_head.reg_convs.2*",
                stride="all",
                teacher_classifier=["bbox_head.reg_convs.3", "bbox_head.retina_reg"],
                loss=dict(type="mmkd.CrossKDLoss", compare="deltas"),
                weight=1.0,
            ),
        ),
    )
]
