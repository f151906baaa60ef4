# Co-Advise (Ren et al., CVPR 2022): RegNetY-040 and RedNet-101 teach a transformer with a token for
# either, by KL at T 1 and weight 1 beside the cross-entropy, as the authors' program does.
_base_ = "mmpretrain::deit/deit-small_4xb256_in1k.py"
custom_imports = dict(imports=["mmkd"])

model = dict(backbone=dict(type="mmkd.CivT"), head=dict(type="mmkd.CivTClsHead"))
teacher = dict(
    convolution=dict(
        config="{{ fileDirname }}/regnety-040_8xb32_in1k.py",
        checkpoint="checkpoints/regnety-040.pth",
    ),
    involution=dict(
        config="{{ fileDirname }}/rednet-101_8xb32_in1k.py",
        checkpoint="checkpoints/rednet-101.pth",
    ),
)
loss = dict(type="mmkd.KDLoss", temperature=1.0)
terms = dict(
    convolution=dict(
        source="convolution", student="head.layers.head_conv", teacher="head.fc", loss=loss
    ),
    involution=dict(
        source="involution", student="head.layers.head_inv", teacher="head.fc", loss=loss
    ),
)
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=terms)]
