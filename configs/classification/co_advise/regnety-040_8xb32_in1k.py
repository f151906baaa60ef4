# RegNetY-040, timm's: Co-Advise's convolutional teacher. Nobody trains it here.
_base_ = "../imagenet/regnety-160_8xb32_in1k.py"

model = dict(backbone=dict(model_name="regnety_040"), head=dict(in_channels=1088))
