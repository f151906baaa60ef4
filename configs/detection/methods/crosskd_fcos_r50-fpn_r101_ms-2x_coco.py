# CrossKD (Wang et al., CVPR 2024): R50-FPN through the rest of the head of R101-FPN, 38.5 -> 41.1.
_base_ = "mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py"
custom_imports = dict(imports=["mmkd"])

# MMDetection's weights of the teacher's config, wherever you keep them:
# --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "checkpoints/fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco.pth"
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="mmdet::fcos/fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco.py",
            checkpoint=teacher_checkpoint,
        ),
        terms=dict(
            classes=dict(
                student="bbox_head.cls_convs.2*",
                teacher="bbox_head.cls_convs.2*",
                stride="all",
                teacher_classifier=["bbox_head.cls_convs.3", "bbox_head.conv_cls"],
                loss=dict(type="mmkd.CrossKDLoss", compare="classes"),
                weight=1.0,
            ),
            boxes=dict(
                student="bbox_head.reg_convs.2*",
                teacher="bbox_head.reg_convs.2*",
                stride="all",
                teacher_classifier=[
                    "bbox_head.reg_convs.3",
                    "bbox_head.conv_reg",
                    "bbox_head.scales.{level}",
                ],
                loss=dict(type="mmkd.CrossKDLoss", compare="distances"),
                weight=1.0,
            ),
        ),
    )
]
