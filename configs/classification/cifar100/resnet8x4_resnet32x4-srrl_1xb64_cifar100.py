# ResNet-32x4 teaches ResNet-8x4 by SRRL: the feature itself, and through the teacher's classifier.
_base_ = "./resnet8x4_1xb64_cifar100.py"

teacher_checkpoint = "work_dirs/resnet32x4_1xb64_cifar100/epoch_240.pth"
teacher = dict(
    config="{{ fileDirname }}/resnet32x4_1xb64_cifar100.py", checkpoint=teacher_checkpoint
)
srrl = dict(
    view="global",
    projector=dict(type="mmkd.ConvConnector", layout="1x1", initial="he"),
    normalizer=dict(type="mmkd.IdentityNormalizer"),
    loss=dict(type="mmkd.SoftmaxRegressionLoss"),
    teacher_classifier="head.fc",
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=dict(srrl=srrl))]
