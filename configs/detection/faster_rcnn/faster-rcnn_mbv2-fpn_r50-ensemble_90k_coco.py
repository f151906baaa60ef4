# R50-FPN teaches MobileNetV2-FPN through Chen et al.'s projector ensemble.
_base_ = "./faster-rcnn_mbv2-fpn_90k_coco.py"
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
            ensemble=dict(
                projector=dict(type="mmkd.ProjectorEnsemble", num_projectors=3),
                normalizer=dict(type="mmkd.IdentityNormalizer"),
                loss=dict(type="mmkd.DirectionAlignmentLoss"),
                # The paper's; the best of three in benchmarks/results/digits_sweep.md, too.
                weight=25.0,
            )
        ),
    )
]
