# MobileNetV2-FPN alone, 29.47 mAP in Miles & Mikolajczyk, Table 8: the baseline of the configs
# faster-rcnn_mbv2-fpn_r50-*_90k_coco.py. ReviewKD's files behind that figure see as many images in
# batches of 8: `mmkd train ... --cfg-options train_cfg.max_iters=180000
# optim_wrapper.optimizer.lr=0.01 param_scheduler.1.end=180000
# param_scheduler.1.milestones=[120000,160000]` with 4 processes.
_base_ = "./faster-rcnn_r50-fpn_90k_coco.py"
custom_imports = dict(imports=["mmkd"])

model = dict(
    backbone=dict(
        _delete_=True,
        type="MobileNetV2",
        out_indices=(1, 2, 4, 6),  # the last block of strides 4, 8, 16 and 32
        # 2 images a process are too few for batch statistics; as there, scale and shift rest too.
        norm_eval=True,
        norm_cfg=dict(type="BN", requires_grad=False),
        init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://mmdet/mobilenet_v2"),
    ),
    neck=dict(in_channels=[24, 32, 96, 320]),
)
