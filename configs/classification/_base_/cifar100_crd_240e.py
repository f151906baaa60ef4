# CIFAR-100 in CRD's setting, which the tables share: 240 epochs of batches of 64, random crops of
# the image padded by 4 pixels, flips. A network's config adds its backbone and the head's width.
_base_ = ["mmpretrain::_base_/datasets/cifar100_bs16.py", "mmpretrain::_base_/default_runtime.py"]
custom_imports = dict(imports=["mmkd"])

model = dict(
    type="ImageClassifier",
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=100,
        loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
        # Torch's own initial weights, as the framework's ResNets and ShuffleNets have them; the
        # other networks' configs say theirs.
        init_cfg=None,
    ),
)

train_dataloader = dict(batch_size=64)
val_dataloader = dict(batch_size=256)
test_dataloader = dict(batch_size=256)

max_epochs = 240
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type="MultiStepLR", by_epoch=True, milestones=[150, 180, 210], gamma=0.1)
auto_scale_lr = dict(base_batch_size=64)
default_hooks = dict(checkpoint=dict(interval=20, max_keep_ckpts=1))
