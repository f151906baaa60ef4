# SimKD: the connected map against the teacher's, by the mean squared difference. The connector is
# the head's own, so the term needs no projector.
terms = dict(
    map=dict(
        student="head.connector",
        projector=dict(type="mmkd.IdentityProjector"),
        normalizer=dict(type="mmkd.IdentityNormalizer"),
        loss=dict(type="mmkd.MSELoss"),
    )
)
