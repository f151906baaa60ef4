# SSKD (Xu et al., ECCV 2020) on turned images: 0.1 of the cross-entropy, factors 0.9, 2.7 and 10,
# T 4 and 0.5, 0.75 of what the teacher takes for another image: the authors' program on CIFAR-100.
# The teacher's network learns in the first 25 of 100 epochs.
# Theirs crops at random without flips, and lowers the teacher's rate at 30 and 45 of its 60 epochs.
_base_ = "../_base_/pairs/resnet18_resnet34.py"

data_preprocessor = dict(type="mmkd.RotationPreprocessor")
# Of a batch that is four times as large.
model = dict(head=dict(loss=dict(loss_weight=0.4)))
taps = ["backbone", "head.fc"]
terms = dict(
    sskd=dict(
        type="mmkd.SSKDDistiller",
        student=taps,
        teacher=taps,
        pretext=25 * 5005,
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=_base_.teacher, terms=terms)]
