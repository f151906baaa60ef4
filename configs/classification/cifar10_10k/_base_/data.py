# A folder with train/ and test/, each with one folder of images a class: 10,000 and 2,000 of
# CIFAR-10's. Another place: --cfg-options train_dataloader.dataset.data_root=... and test_...
dataset_type = "CustomDataset"
data_root = "data/cifar10_10k"
num_classes = 10

data_preprocessor = dict(
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=True,
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomCrop", crop_size=32, padding=4),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="PackInputs")]

# Images this small load faster than they travel between processes: no workers.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    drop_last=True,  # each batch is a statistic of its own for the normalisers
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type=dataset_type, data_root=data_root, data_prefix="train", pipeline=train_pipeline
    ),
)
test_dataloader = dict(
    batch_size=250,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type=dataset_type, data_root=data_root, data_prefix="test", pipeline=test_pipeline
    ),
)
test_evaluator = dict(type="Accuracy", topk=1)
