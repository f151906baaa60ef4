# Standardised logits (Sun et al., CVPR 2024): T 2, weight 9, as in the authors' program, which
# divides squares by K - 1, not K: of 100 classes, as if T here were 1.99.
terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        normalizer=dict(type="mmkd.LayerNormalizer", eps=1e-12),
        loss=dict(type="mmkd.KDLoss", temperature=2.0),
        weight=9.0,
    ),
)
