# Miles & Mikolajczyk on DeiT: the mean of the patch tokens against the teacher's pooled map by the
# correlation form of LogSum; the KL divergence at temperature 1 on the distillation token's head.
terms = dict(
    feature=dict(
        student="backbone.ln1",
        student_extra_tokens=2,
        view="global",
        loss=dict(type="mmkd.CorrelationLogSumLoss", alpha=4.0),
    ),
    kl=dict(
        student="head.layers.head_dist",
        teacher="head.fc",
        loss=dict(type="mmkd.KDLoss", temperature=1.0),
    ),
)
