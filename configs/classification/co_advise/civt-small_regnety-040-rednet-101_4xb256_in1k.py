# Co-Advise (Ren et al., CVPR 2022): RegNetY-040 and RedNet-101 teach a transformer with a token for
# either, by KL at T 1 and weight 1 beside the cross-entropy, with gradients clipped at 15 and
# classifiers that start as the other layers do, as in the authors' program.
_base_ = "mmpretrain::deit/deit-small_4xb256_in1k.py"
custom_imports = dict(imports=["mmkd"])

model = dict(
    backbone=dict(type="mmkd.CivT"),
    head=dict(type="mmkd.CivTClsHead", init_cfg=dict(type="TruncNormal", layer="Linear", std=0.02)),
)
optim_wrapper = dict(clip_grad=dict(max_norm=15.0))
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
