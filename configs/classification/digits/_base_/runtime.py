# The small schedule, shorter and steeper.
_base_ = "../../_base_/small_runtime.py"

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.4))
rise, fall = _base_.param_scheduler
rise.end = 30
fall.update(T_max=max_epochs, end=max_epochs)
param_scheduler = [rise, fall]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=max_epochs))
