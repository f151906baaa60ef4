"""Distillation in Ultralytics' trainer.

Ultralytics is licensed under AGPL-3.0 and imported in this package only; mmkd's extra ``yolo``
installs it.
"""

from __future__ import annotations

from mmkd.engine.ultralytics.version import check_version

check_version()

from mmkd.engine.ultralytics.callback import DistillCallback  # noqa: E402
from mmkd.engine.ultralytics.trainer import DistillTrainer, distilling  # noqa: E402

__all__ = ["DistillCallback", "DistillTrainer", "distilling"]
