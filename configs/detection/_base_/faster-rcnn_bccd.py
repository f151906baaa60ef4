# Faster R-CNN for blood cells at 256 x 192: platelets of about 15 pixels, red cells of 40, white
# ones of 50 to 100, up to 30 an image, all about as high as wide. What two cores do not need of
# the stock model is cut. A config that builds on it adds `backbone` and `neck`.
_base_ = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"

num_channels = 64
model = dict(
    rpn_head=dict(
        in_channels=num_channels,
        feat_channels=num_channels,
        anchor_generator=dict(
            base_sizes=[16, 40, 75], scales=[1.0], ratios=[1.0], strides=[8, 16, 32]
        ),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(output_size=5),
            out_channels=num_channels,
            featmap_strides=[8, 16],
            finest_scale=28,  # boxes of 56 pixels and more are read from stride 16
        ),
        bbox_head=dict(
            in_channels=num_channels,
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
