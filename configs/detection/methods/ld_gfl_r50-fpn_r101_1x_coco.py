# LD (Zheng et al., CVPR 2022): the box distributions of R101-FPN teach R50-FPN. The weight is the
# paper's of either of its two regions, which are one here (see LDLoss). The paper's class KD at T 2
# is left out; it would be a term of its own, "head.classes" with mmkd.BinaryKDLoss.
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
            ld=dict(
                student="head.boxes",
                teacher="head.boxes",
                stride="all",
                loss=dict(type="mmkd.LDLoss"),
                weight=0.25,
            )
        ),
    )
]
