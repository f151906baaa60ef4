# Miles & Mikolajczyk on CIFAR-100: pooled features, an MLP projector, BatchNorm, LogSum, no KL.
terms = dict(
    feature=dict(
        view="global",
        projector=dict(type="mmkd.MLPProjector", hidden_channels=1024, num_layers=2),
        loss=dict(type="mmkd.LogSumLoss", alpha=4.0),
    )
)
