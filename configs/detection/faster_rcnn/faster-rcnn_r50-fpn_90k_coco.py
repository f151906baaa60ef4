# ResNet-50-FPN alone: the baseline of faster-rcnn_r50-fpn_r101-distill_90k_coco.py.
_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py", "../_base_/coco_ms_90k.py"]
custom_imports = dict(imports=["mmkd"])
