# scikit-learn's handwritten digits: 1,297 to train, 500 to test, 8 x 8 pixels.
num_classes = 10
data_preprocessor = dict(mean=[78.0] * 3, std=[96.0] * 3)
pipeline = [dict(type="PackInputs")]  # no augmentation: a moved stroke leaves an image this small

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="mmkd.HandwrittenDigits", split="train", pipeline=pipeline),
)
test_dataloader = dict(
    batch_size=250,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="mmkd.HandwrittenDigits", split="test", pipeline=pipeline),
)
test_evaluator = dict(type="Accuracy", topk=1)
