# Faster R-CNN for blood cells at 192 x 144 with a feature pyramid, as most detectors have one:
# three levels, of stride 8, 16 and 32. Set up for the student; the teacher changes widths.
_base_ = "./faster-rcnn_bccd.py"

model = dict(
    backbone=dict(strides=(1, 2, 2, 2), out_indices=(1, 2, 3)),
    neck=dict(in_channels=[16, 32, 64], num_outs=3),
    rpn_head=dict(
        anchor_generator=dict(base_sizes=[12, 30, 56], scales=[1.0], strides=[8, 16, 32])
    ),
    roi_head=dict(bbox_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=24)),
)
