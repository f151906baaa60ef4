"""What recording the dynamics of a distillation adds to a training's time.

    python benchmarks/dynamics_cost.py
    python benchmarks/dynamics_cost.py --size 32 --batch-size 64 \\
        --pair configs/classification/methods/resnet8x4_resnet32x4-sp_1xb64_cifar100.py

The distilled training step and a record by DynamicsHook's defaults, of the training's and of as
many validation images, are timed in turn, round by round. The share is that of records in the
training's time at the default interval, however short an epoch is.
"""

from __future__ import annotations

import argparse
import os
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.logging import MMLogger
from step_cost import distilled_runner, environment, read
from step_timing import ROOT, parse_args, peak_bytes, peaks, summary, table, timings, write

from mmkd import DistillHook, DynamicsHook
from mmkd.dynamics import DynamicsSettings, recorded
from mmkd.dynamics_file import DYNAMICS_FILE, DynamicsFile

LABELS = {"step": "student's step, distilled", "record": "record"}
# Longer than any benchmark.
NEVER = 10**9


def steps_of(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """The step, and a record of the same training."""
    config = read(args.pair)
    config.custom_hooks.append(dict(type="mmkd.DynamicsHook", interval=NEVER, by_epoch=False))
    runner = distilled_runner(None, args, folder, "dynamics", config)
    [hook] = (hook for hook in runner.hooks if isinstance(hook, DynamicsHook))
    distilling = DistillHook.among(runner.hooks)
    assert distilling is not None and distilling.distillation is not None
    distillation = distilling.distillation
    [probe] = hook.probes.values()
    probes = dict(train=probe, val=probe)
    file = DynamicsFile(os.path.join(folder, DYNAMICS_FILE))
    return dict(
        step=runner.train_loop.step, record=lambda: file.add(1, recorded(distillation, probes))
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT / "configs/detection/faster_rcnn/faster-rcnn_mbv2-fpn_r50-distill_90k_coco.py"
    parser.add_argument("--pair", default=str(default), help="config of a distilled student")
    args = parse_args(parser, "dynamics_cost", list(LABELS), batch_size=2, rounds=7)
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the Runner takes a GPU where it sees one
    if args.threads:
        torch.set_num_threads(args.threads)
    MMLogger.get_instance("dynamics_cost", log_level="ERROR")  # or every initial weight is told
    with TemporaryDirectory() as folder:
        steps = steps_of(args, folder)
        if args.peak_of:
            print(peak_bytes(steps[args.peak_of], args.device))
            return
        result = summary(timings(steps, args))
    result["peak_bytes"] = peaks(list(LABELS))
    median = result["seconds"]
    settings = DynamicsSettings()
    result["steps_between"] = between = settings.every(args.batch_size)
    result["share"] = share = median["record"] / (median["record"] + between * median["step"])
    lines = [
        "# Cost of recording the dynamics",
        "",
        *table(LABELS, result, {"of a step": "step"}, args.device),
        "",
        f"One record in {between} steps, the default, is {100 * share:.1f} % of the training's "
        "time.",
    ]
    write(lines, environment(args), result, args.out)


if __name__ == "__main__":
    main()
