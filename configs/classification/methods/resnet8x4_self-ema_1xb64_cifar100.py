# ResNet-8x4 with its own moving average for a teacher (Tarvainen & Valpola, NeurIPS 2017): momentum
# and length of the rise as in the authors' program for a residual network on CIFAR-10, distance and
# weight as in that for ImageNet. Theirs rises in a curve by whole epochs, has a second classifier
# for the distance, and shows the teacher another augmentation of each image.
_base_ = "../cifar100/resnet8x4_1xb64_cifar100.py"

terms = dict(
    kd=dict(
        student="head.fc",
        teacher="head.fc",
        loss=dict(type="mmkd.KDLoss", temperature=1.0),
        weight=10.0,
        schedule=dict(ramp=5),
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=dict(ema=0.97), terms=terms)]
