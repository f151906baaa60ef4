# The teacher's last backbone stage taught through Chen et al.'s projector ensemble.
_base_ = "./faster-rcnn_r18-w8_bccd.py"
custom_imports = dict(imports=["mmkd"])

# Another file: --cfg-options custom_hooks.0.teacher.checkpoint=...
teacher_checkpoint = "work_dirs/faster-rcnn_r18-w16_bccd/epoch_20.pth"
custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        teacher=dict(
            config="{{ fileDirname }}/faster-rcnn_r18-w16_bccd.py", checkpoint=teacher_checkpoint
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
