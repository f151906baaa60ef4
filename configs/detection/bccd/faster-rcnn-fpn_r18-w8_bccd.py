# The student alone, with a feature pyramid: a ResNet-18 of 8 channels.
_base_ = [
    "../_base_/faster-rcnn-fpn_bccd.py",
    "../_base_/bccd_detection.py",
    "../_base_/bccd_runtime.py",
]
custom_imports = dict(imports=["mmkd"])
