# Faster R-CNN for blood cells at 192 x 144: platelets of about 12 pixels, red cells of 30, white
# ones of 38 to 75, up to 30 an image, all about as high as wide. What two cores do not need of
# the stock model is cut, and the backbone ends at stride 8: its last stage, which is distilled, is
# the only level. Set up for the student; the teacher changes widths.
_base_ = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"

model = dict(
    backbone=dict(
        depth=18,
        base_channels=8,
        stem_channels=8,
        strides=(1, 2, 1, 1),
        out_indices=(3,),
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[64], out_channels=32, num_outs=1),
    rpn_head=dict(
        in_channels=32,
        feat_channels=32,
        anchor_generator=dict(base_sizes=[12], scales=[1.0, 2.5, 4.7], ratios=[1.0], strides=[8]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(output_size=5), out_channels=32, featmap_strides=[8]
        ),
        bbox_head=dict(
            in_channels=32,
            fc_out_channels=128,
            roi_feat_size=5,
            num_classes=3,
            reg_class_agnostic=True,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=200, max_per_img=64),
        rcnn=dict(sampler=dict(num=48, pos_fraction=0.5)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(max_per_img=60),
    ),
)
