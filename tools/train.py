"""Train the model of a config; distillation is one of its `custom_hooks`.

    python tools/train.py configs/detection/bccd/faster-rcnn_r18-w8_bccd_distill.py

It differs from MMDetection's own script only in importing mmkd before anything else, so that it
also runs where mmcv was installed without its compiled extension, and in finding modules of the
current folder, which a config's `custom_imports` may name.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import mmkd  # noqa: F401
from mmkd.engine.mmengine.safe_yaml import load_config

# As with `python -m`.
sys.path.insert(0, os.getcwd())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="config file")
    parser.add_argument(
        "--work-dir", help="folder of logs and checkpoints (default: ./work_dirs/<config's name>)"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from a checkpoint; without a path, from the newest in the work dir",
    )
    parser.add_argument("--amp", action="store_true", help="train in mixed precision")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate to the actual batch size",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="settings that replace the config's, such as train_cfg.max_epochs=3 or "
        "custom_hooks.0.teacher.checkpoint=teacher.pth",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    # Launchers pass one spelling or the other, or set LOCAL_RANK themselves.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def read_config(args: argparse.Namespace) -> Config:
    """The config with what the command line says in place of its own settings."""
    cfg = load_config(args.config)
    cfg.launcher = args.launcher
    cfg.merge_from_dict(args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"./work_dirs/{args.config.stem}"
    if args.amp:
        cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise ValueError(
                f"--auto-scale-lr: {args.config} does not tell the batch size that its learning "
                "rate is meant for: add auto_scale_lr=dict(base_batch_size=...)"
            )
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume
    return cfg


def main() -> None:
    cfg = read_config(parse_args())
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    runner.train()


if __name__ == "__main__":
    main()
