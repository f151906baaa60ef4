"""Evaluate a checkpoint on its config's test set; no teacher is needed.

    python tools/test.py configs/detection/bccd/faster-rcnn_r18-w8_bccd_distill.py \
        work_dirs/faster-rcnn_r18-w8_bccd_distill/epoch_10.pth

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
from mmengine.evaluator import DumpResults
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
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument(
        "--work-dir", help="folder of logs and metrics (default: ./work_dirs/<config's name>)"
    )
    parser.add_argument("--out", metavar="FILE.pkl", help="also write the predictions")
    parser.add_argument(
        "--show-dir", help="also draw the predictions; a folder within the work dir's own"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="settings that replace the config's, such as test_dataloader.batch_size=4",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    # Launchers pass one spelling or the other, or set LOCAL_RANK themselves.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    if args.out and not args.out.endswith((".pkl", ".pickle")):
        parser.error(f"--out writes a pickle: expected a name ending in .pkl, got {args.out}")
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def read_config(args: argparse.Namespace) -> Config:
    """The config with what the command line says in place of its own settings."""
    cfg = load_config(args.config)
    cfg.launcher = args.launcher
    cfg.merge_from_dict(args.cfg_options)
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or f"./work_dirs/{args.config.stem}"
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show_dir:
        if "visualization" not in cfg.get("default_hooks", {}):
            raise ValueError(
                f"--show-dir: {args.config} has no default_hooks.visualization, which draws: "
                "add dict(type='DetVisualizationHook')"
            )
        cfg.default_hooks.visualization.update(draw=True, test_out_dir=args.show_dir)
    return cfg


def main() -> None:
    args = parse_args()
    cfg = read_config(args)
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    if args.out:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    runner.test()


if __name__ == "__main__":
    main()
