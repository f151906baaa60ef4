"""What a trainer leaves in a run's folder, read without executing any of it."""

from mmkd.work_dirs.curves import MAP_CURVES, TASK_LOSS, Curve
from mmkd.work_dirs.work_dir import WorkDir, read_work_dir

__all__ = ["MAP_CURVES", "TASK_LOSS", "Curve", "WorkDir", "read_work_dir"]
