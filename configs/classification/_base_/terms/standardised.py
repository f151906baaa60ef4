# Standardised logits (Sun et al., CVPR 2024): T 2, weight 9, as in the authors' program.
terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        normalizer=dict(type="mmkd.LayerNormalizer", eps=1e-12),
        loss=dict(type="mmkd.KDLoss", temperature=2.0),
        weight=9.0,
    ),
)
