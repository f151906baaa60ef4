# Chen et al.'s projector ensemble. Another number of projectors:
# --cfg-options custom_hooks.0.terms.feature.projector.num_projectors=4
terms = dict(
    feature=dict(
        view="global",
        projector=dict(type="mmkd.ProjectorEnsemble", num_projectors=3, activation="relu"),
        normalizer=dict(type="mmkd.IdentityNormalizer"),
        loss=dict(type="mmkd.DirectionAlignmentLoss"),
        weight=25.0,
    )
)
