# IJCKD with the teacher's classifier, which the head holds: SimKD's term, and the logits of both
# features under that classifier.
_base_ = "./simkd.py"

terms = dict(
    logits=dict(
        student="head.fc",
        teacher="head.fc",
        projector=dict(type="mmkd.IdentityProjector"),
        normalizer=dict(type="mmkd.IdentityNormalizer"),
        loss=dict(type="mmkd.MSELoss"),
    ),
)
