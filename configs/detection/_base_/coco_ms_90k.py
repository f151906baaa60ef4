# COCO as ReviewKD's detectors train on it, and with them those of Miles & Mikolajczyk, Table 8:
# 90k iterations of 16 images, the shorter side 640 to 800 pixels, the longer at most 1333.
_base_ = [
    "mmdet::_base_/datasets/coco_detection.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]

train_pipeline = [
    dict(type="LoadImageFromFile", backend_args=_base_.backend_args),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, 640), (1333, 672), (1333, 704), (1333, 736), (1333, 768), (1333, 800)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
# 8 processes of 2 images; with other numbers, `--auto-scale-lr` keeps the learning rate in line.
train_dataloader = dict(
    batch_size=2, sampler=dict(type="InfiniteSampler"), dataset=dict(pipeline=train_pipeline)
)

# SGD at 0.02 with momentum 0.9 and weight decay 1e-4 comes with the 1x schedule.
max_iters = 90_000
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=max_iters, val_interval=10_000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(
        type="MultiStepLR",
        by_epoch=False,
        begin=0,
        end=max_iters,
        milestones=[60_000, 80_000],
        gamma=0.1,
    ),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10_000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
