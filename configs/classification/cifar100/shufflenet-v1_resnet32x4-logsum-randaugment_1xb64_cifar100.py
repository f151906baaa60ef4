# The same with RandAugment on the second view.
_base_ = "./shufflenet-v1_resnet32x4-logsum-rotation_1xb64_cifar100.py"

train_dataloader = dict(dataset=dict(pipeline=_base_.randaugment_views))
