# RedNet-101 (Li et al., CVPR 2021): Co-Advise's involutional teacher. Its weights are theirs;
# nobody trains it here.
_base_ = "mmpretrain::resnet/resnet101_8xb32_in1k.py"
custom_imports = dict(imports=["mmkd"])

model = dict(backbone=dict(type="mmkd.RedNet", style="pytorch"))
