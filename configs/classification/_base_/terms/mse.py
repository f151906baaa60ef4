# Miles & Mikolajczyk without LogSum: the mean squared distance of batch-normalised features,
# whose gradient is about as large as LogSum's.
terms = dict(feature=dict(view="global", loss=dict(type="mmkd.MSELoss"), weight=2.0))
