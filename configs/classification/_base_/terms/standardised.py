# Standardised logits (Sun et al., CVPR 2024): T 2, weight 9, as in the authors' program for
# CIFAR-100, which divides squares by K - 1, not K: of 100 classes, as if T here were 2.01. For
# ImageNet that program has weights of 0.5, temperatures from 1 to 6 and two views of an image.
terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        normalizer=dict(type="mmkd.LayerNormalizer", eps=1e-12),
        loss=dict(type="mmkd.KDLoss", temperature=2.0),
        weight=9.0,
    ),
)
