# ResNet-34 teaches ResNet-18 by IJCKD, with the teacher's classifier: Li et al.; the schedule is
# their program's.
_base_ = ["mmpretrain::resnet/resnet18_8xb32_in1k.py", "../_base_/terms/ijckd.py"]
custom_imports = dict(imports=["mmkd"])

param_scheduler = dict(type="MultiStepLR", by_epoch=True, milestones=[30, 60, 90], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=120, val_interval=1)
model = dict(neck=None, head=dict(type="mmkd.ConnectorClsHead", teacher_channels=512))
teacher_checkpoint = "checkpoints/resnet34.pth"
teacher = dict(config="mmpretrain::resnet/resnet34_8xb32_in1k.py", checkpoint=teacher_checkpoint)
reused = {"head.fc": "head.fc"}
custom_hooks = [dict(type="mmkd.DistillHook", teacher=teacher, terms=_base_.terms, inherit=reused)]
