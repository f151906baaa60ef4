# IJCKD with the student's own classifier: an ordinary ResNet-8x4, the connector only in training.
_base_ = ["./resnet8x4_1xb64_cifar100.py", "../_base_/terms/ijckd.py"]

teacher_checkpoint = "work_dirs/resnet32x4_1xb64_cifar100/epoch_240.pth"
teacher = dict(
    config="{{ fileDirname }}/resnet32x4_1xb64_cifar100.py", checkpoint=teacher_checkpoint
)
connected = dict(
    projector=dict(type="mmkd.ConvConnector"),
    normalizer=dict(type="mmkd.IdentityNormalizer"),
    loss=dict(type="mmkd.MSELoss"),
)
terms = dict(map=connected, logits=_base_.terms.logits)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=terms)]
