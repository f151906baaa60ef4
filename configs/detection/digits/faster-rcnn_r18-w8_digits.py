# The student: a ResNet-18 of 8 channels.
_base_ = [
    "../_base_/faster-rcnn_digits.py",
    "../_base_/digits_detection.py",
    "../_base_/digits_runtime.py",
]
custom_imports = dict(imports=["mmkd"])
