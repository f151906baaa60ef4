# An assistant: ResNet-34 teaches timm's ResNet-26 by KD, as it would the student. That it stands
# between the two is our choice.
_base_ = "../imagenet/resnet18_resnet34-kd_8xb32_in1k.py"

model = dict(
    backbone=dict(_delete_=True, type="TIMMBackbone", model_name="resnet26"),
    head=dict(in_channels=2048),
)
