# Spherical KD (Guo et al., 2020). The paper's T is 4; 0.1 cross-entropy + 0.9 as KD here. The
# authors' program scales each image by its own teacher's deviation, and the cross-entropy's logits.
terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.SphericalKDLoss"),
        weight=0.9,
    ),
)
