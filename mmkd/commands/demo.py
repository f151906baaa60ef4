"""``mmkd demo``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mmkd.commands.user_errors import user_errors
from mmkd.extras import extra

__all__ = ["demo"]


class Framework(str, Enum):
    """What the demo trains with."""

    faster_rcnn = "faster_rcnn"
    yolov5 = "yolov5"


def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Where data, runs and pictures go.", show_default="work_dirs/demo*"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds; mean and spread.")] = 1,
    framework: Annotated[
        Framework, typer.Option(help="MMDetection's Faster R-CNN, or Ultralytics' YOLOv5.")
    ] = Framework.faster_rcnn,
) -> None:
    """Distil a small detector on handwritten digits, in some minutes."""
    suffix = "" if framework is Framework.faster_rcnn else f"_{framework.value}"
    with user_errors("demo", ImportError):
        import torch

        with extra("demo", "mmkd demo"):
            from mmkd.demo import run_demo

        # Networks this small gain little from a second thread, and lose much on a busy machine.
        torch.set_num_threads(1)
        run_demo(out or Path(f"work_dirs/demo{suffix}"), seeds=seeds, framework=framework.value)
