# CID (Deng & Zhang, NeurIPS 2021): factors 1, 10 and 1, T 4, as the authors' program has them from
# ResNet-56 to ResNet-20 on CIFAR-100; contexts after 20 epochs of 240, then from epoch to epoch.
# Theirs has Nesterov's momentum and no weight decay on the regressor.
_base_ = "../_base_/pairs/resnet8x4_resnet32x4.py"

model = dict(head=dict(type="mmkd.ContextClsHead"))
taps = ["backbone", "head.fc"]
terms = dict(
    cid=dict(
        type="mmkd.CIDDistiller",
        student=taps,
        teacher=taps,
        student_classifier="head",
        initial=20 * 782,
        every=782,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
