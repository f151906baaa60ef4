# MGD (Yang et al., ECCV 2022): X101-FPN teaches R50-FPN, which starts with its neck and head.
_base_ = "mmdet::retinanet/retinanet_r50_fpn_2x_coco.py"
custom_imports = dict(imports=["mmkd"])

# MMDetection's weights of the teacher's config, wherever you keep them:
# --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "checkpoints/retinanet_x101_64x4d_fpn_1x_coco.pth"
# As the authors clip.
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py",
            checkpoint=teacher_checkpoint,
        ),
        inherit=dict(neck="neck", bbox_head="bbox_head"),
        terms=dict(
            mgd=dict(
                student="neck",
                teacher="neck",
                level=[0, 1, 2, 3, 4],
                loss=dict(type="mmkd.MGDLoss", masked=0.65),
                weight=2e-5,
            )
        ),
    )
]
