# The patch tokens of a foundation model teach the coarsest map, as in RT-DETRv4: a term's share of
# the gradient stays at 11%. There the images are halved so that the grids meet; here the tokens are
# pooled to the student's grid.
_base_ = "mmdet::gfl/gfl_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["mmkd"])

# MMPretrain's weights of the teacher's config, wherever you keep them:
# --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "checkpoints/vit-small-p14_dinov2-pre_3rdparty.pth"
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="mmpretrain::dinov2/vit-small-p14_dinov2-pre_headless.py",
            checkpoint=teacher_checkpoint,
        ),
        terms=dict(
            tokens=dict(
                student="backbone",
                student_stride=32,
                teacher="backbone.ln1",
                teacher_level=-1,
                teacher_extra_tokens=1,
                normalizer=dict(type="mmkd.IdentityNormalizer"),
                loss=dict(type="mmkd.DirectionAlignmentLoss"),
                weight=dict(share=0.11),
            )
        ),
    )
]
