"""Distillation in Ultralytics' trainer.

Ultralytics is licensed under AGPL-3.0 and imported in this package only; mmkd's extra ``yolo``
installs it. From its import on, Ultralytics reads checkpoints without executing what is pickled in
them, unless the environment sets ``ULTRALYTICS_SAFE_LOAD=0``.
"""

from __future__ import annotations

from mmkd.engine.ultralytics.safe_loading import load_safely
from mmkd.engine.ultralytics.version import check_version

check_version()
load_safely()

from mmkd.engine.ultralytics.callback import DistillCallback  # noqa: E402
from mmkd.engine.ultralytics.trainer import DistillTrainer, distilling  # noqa: E402

__all__ = ["DistillCallback", "DistillTrainer", "distilling"]
