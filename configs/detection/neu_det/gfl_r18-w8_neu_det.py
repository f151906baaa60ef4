# The student alone: a ResNet-18 of 8 channels.
_base_ = [
    "../_base_/gfl_neu_det.py",
    "../_base_/neu_det_detection.py",
    "../_base_/neu_det_runtime.py",
]
custom_imports = dict(imports=["mmkd"])
