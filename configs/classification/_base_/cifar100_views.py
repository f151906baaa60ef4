# Pairs of views of each image, for `mmkd.MultiViewPreprocessor`: the usual crop and flip, and
# beside it one more crop and flip that is then turned (`rotation_views`, SSKD's angles) or sent
# through RandAugment (`randaugment_views`, 2 operations at level 9 of 30).
crop_and_flip = [
    dict(type="RandomCrop", crop_size=32, padding=4),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
]
turns = [
    [dict(type="Rotate", angle=angle, prob=1.0, random_negative_prob=0.0)]
    for angle in (90.0, 180.0, 270.0)
]
rotation_views = [
    dict(
        type="MultiView",
        num_views=[1, 1],
        transforms=[crop_and_flip, [*crop_and_flip, dict(type="RandomChoice", transforms=turns)]],
    ),
    dict(type="PackInputs"),
]
randaugment = dict(
    type="RandAugment",
    policies="timm_increasing",
    num_policies=2,
    magnitude_level=9,
    total_level=30,
    hparams=dict(pad_val=128, prob=1.0),
)
randaugment_views = [
    dict(
        type="MultiView",
        num_views=[1, 1],
        transforms=[crop_and_flip, [*crop_and_flip, randaugment]],
    ),
    dict(type="PackInputs"),
]
