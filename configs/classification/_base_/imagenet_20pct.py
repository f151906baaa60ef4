# A fifth of ImageNet's training images, the same share of every class, for Miles & Mikolajczyk's
# ablations; the whole validation set. 100 epochs, drops at 30, 60 and 90, as on all of ImageNet.
_base_ = [
    "mmpretrain::_base_/datasets/imagenet_bs32.py",
    "mmpretrain::_base_/schedules/imagenet_bs256.py",
    "mmpretrain::_base_/default_runtime.py",
]
custom_imports = dict(imports=["mmkd"])

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="mmkd.SeededSubset",
        dataset=_base_.train_dataloader.dataset,
        fraction=0.2,
        seed=0,
    )
)
