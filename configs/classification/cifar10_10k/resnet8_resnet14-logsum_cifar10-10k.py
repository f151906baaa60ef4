# The same student, distilled: linear projector, BatchNorm and LogSum on the pooled last map.
# benchmarks/cifar_study.py puts every other method's terms in their place.
_base_ = "./resnet8_cifar10-10k.py"

custom_hooks = [
    dict(
        type="mmkd.DistillHook",
        # Another file: --cfg-options custom_hooks.0.teacher.checkpoint=...
        teacher=dict(
            config="{{ fileDirname }}/resnet14_cifar10-10k.py",
            checkpoint="work_dirs/resnet14_cifar10-10k/epoch_25.pth",
        ),
        terms=dict(feature=dict(view="global")),
        probe_size=32,
    )
]
