"""What distillation adds to a training step, in time and in memory.

    python benchmarks/step_cost.py
    python benchmarks/step_cost.py --device cuda --size 640 --batch-size 8

Three things are timed in turn, round by round, so that a busy machine hurts them alike: the
training step of the student alone, the step with DistillHook (both run by MMEngine's Runner:
preprocessing, forward, backward, optimizer and hooks), and the teacher's backbone without
gradients, which no distillation of its features can do without. The overhead is what the distilled
step takes beyond the sum of the other two. Each one's peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, LOOPS, MODELS, DefaultScope
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import Dataset

import mmkd  # noqa: F401  (registers the hook, and stands in for mmcv's operators)
from mmkd.evaluation.environment import describe_environment

ROOT = Path(__file__).parents[1]
VARIANTS = ("plain", "teacher", "distilled")
LABELS = {
    "plain": "student's step",
    "teacher": "teacher's backbone, forward",
    "distilled": "student's step, distilled",
}
OBJECTS_PER_IMAGE = 7  # COCO's mean


@DATASETS.register_module()
class NoiseScenes(Dataset):
    """Square images of noise with random boxes: the cost of a step hardly depends on them."""

    METAINFO: ClassVar[dict[str, Any]] = {}

    def __init__(self, size: int, length: int) -> None:
        self.size, self.length = size, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        rng = np.random.default_rng(index)
        corners = rng.uniform(0, 0.6 * self.size, (OBJECTS_PER_IMAGE, 2))
        sides = rng.uniform(0.1 * self.size, 0.4 * self.size, (OBJECTS_PER_IMAGE, 2))
        boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
        shape = (self.size, self.size)
        sample = DetDataSample(
            metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), img_id=index)
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(rng.integers(80, size=len(boxes))),
        )
        image = rng.integers(0, 256, (3, self.size, self.size), dtype=np.uint8)
        return dict(inputs=torch.from_numpy(image), data_samples=sample)


@LOOPS.register_module()
class SteppedLoop(IterBasedTrainLoop):
    """Begins a training and leaves its steps to the caller."""

    def run(self) -> nn.Module:
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        self._batch = next(self.dataloader_iterator)
        return self.runner.model

    def step(self) -> None:
        """One step on the same batch, its hooks included."""
        self.run_iter(self._batch)


def read(path: str) -> Config:
    """A config file, or one of a package's own (``'mmdet::...'``)."""
    return get_config(path) if "::" in path else Config.fromfile(path)


def distill_settings(config: Config) -> dict[str, Any]:
    """The DistillHook of the pair's config."""
    hooks = [h for h in config.get("custom_hooks", []) if h["type"] == "mmkd.DistillHook"]
    if len(hooks) != 1:
        raise ValueError(f"{config.filename} has {len(hooks)} DistillHooks, expected one")
    return hooks[0]


def with_random_weights(model: dict[str, Any], size: int) -> nn.Module:
    """A detector whose features are of ordinary size: then its weights do not change its cost.

    Untrained BatchNorm statistics would let activations fade, through dozens of layers, into
    denormal numbers, which a CPU is slow at: they are those of a batch of noise instead.
    """
    model["backbone"]["init_cfg"] = None
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(model)
    detector.init_weights()
    norms = [m for m in detector.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the plain mean, here of one batch
    with torch.no_grad():
        detector.backbone(torch.randn(8, 3, size, size))
    return detector


def runner_of(config: Config, name: str, args: argparse.Namespace, folder: str) -> Runner:
    """A Runner that has begun to train the config's student, distilled or not."""
    config.load_from = f"{folder}/student.pth"
    torch.save(with_random_weights(config.model, args.size).state_dict(), config.load_from)
    config.randomness = dict(seed=0)
    config.train_dataloader = dict(
        batch_size=args.batch_size,
        num_workers=0,
        sampler=dict(type="InfiniteSampler"),
        dataset=dict(type="NoiseScenes", size=args.size, length=args.batch_size),
    )
    for split in ("val", "test"):
        config.update({f"{split}_{part}": None for part in ("cfg", "dataloader", "evaluator")})
    config.train_cfg = dict(type="SteppedLoop", max_iters=1_000_000)
    config.default_hooks.logger = None
    config.default_hooks.checkpoint = None
    config.update(
        experiment_name=name, work_dir=f"{folder}/{name}", log_level="ERROR", launcher="none"
    )
    config.visualizer = dict(type="Visualizer", name=name)
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def step_of(variant: str, args: argparse.Namespace, folder: str) -> Callable[[], None]:
    """A function that does once what the variant stands for."""
    config = read(args.pair)
    teacher = distill_settings(config)["teacher"]
    if variant == "plain":
        config.custom_hooks = []
        return runner_of(config, variant, args, folder).train_loop.step
    model = with_random_weights(read(teacher["config"]).model, args.size)
    if variant == "distilled":
        teacher["checkpoint"] = f"{folder}/teacher.pth"
        torch.save(model.state_dict(), teacher["checkpoint"])
        return runner_of(config, variant, args, folder).train_loop.step
    model.to(args.device).eval()
    images = torch.randn(args.batch_size, 3, args.size, args.size, device=args.device)

    def forward() -> None:
        with torch.no_grad():
            model.backbone(images)

    return forward


def seconds(step: Callable[[], None], device: str) -> float:
    """How long one call takes on the device."""
    if device == "cpu":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def timings(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every round, by variant."""
    times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        steps = {variant: step_of(variant, args, folder) for variant in VARIANTS}
        for index in range(args.warmup + args.rounds):
            first = index % len(VARIANTS)  # no variant always comes after the same one
            for variant in VARIANTS[first:] + VARIANTS[:first]:
                elapsed = seconds(steps[variant], args.device)
                if index >= args.warmup:
                    times[variant].append(elapsed)
    return times


def peak_bytes(variant: str, args: argparse.Namespace) -> int:
    """Peak memory of this process after some steps of one variant."""
    with tempfile.TemporaryDirectory() as folder:
        step = step_of(variant, args, folder)
        for _ in range(3):
            step()
    if args.device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peaks() -> dict[str, int]:
    """Peak memory by variant, each from a process with this one's arguments."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of"]
    return {
        variant: int(
            subprocess.run(
                [*command, variant], check=True, stdout=subprocess.PIPE, text=True
            ).stdout.split()[-1]
        )
        for variant in VARIANTS
    }


def environment(args: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "pair": Path(args.pair).stem,
        "input": f"{args.batch_size} images of {args.size} x {args.size}",
        "rounds": f"{args.rounds} after {args.warmup} of warm-up",
        **describe_environment(args.device),
    }


def results(times: dict[str, list[float]], memory: dict[str, int]) -> dict[str, Any]:
    """Medians, quartiles and the overhead as a share of the student's own step."""
    median = {variant: statistics.median(each) for variant, each in times.items()}
    floor = median["plain"] + median["teacher"]
    return {
        "seconds": median,
        "quartiles": {v: statistics.quantiles(each, n=4)[::2] for v, each in times.items()},
        "peak_bytes": memory,
        "step_ratio": median["distilled"] / median["plain"],
        "floor_ratio": floor / median["plain"],
        "overhead": (median["distilled"] - floor) / median["plain"],
    }


def markdown(result: dict[str, Any], about: dict[str, Any], device: str) -> str:
    """The table, and what it was measured on."""
    plain = result["seconds"]["plain"]
    rows = []
    for variant in VARIANTS:
        time_, (low, high) = result["seconds"][variant], result["quartiles"][variant]
        rows.append(
            f"| {LABELS[variant]} | {1000 * time_:.1f} | {1000 * low:.1f} to {1000 * high:.1f} "
            f"| {time_ / plain:.3f} | {result['peak_bytes'][variant] / 2**20:.0f} |"
        )
    memory = "allocated on the GPU" if device == "cuda" else "of the process"
    return "\n".join(
        [
            "# Cost of a distilled training step",
            "",
            f"| | median, ms | quartiles, ms | of the student's step | peak MiB {memory} |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Beyond the student's step and the teacher's forward: "
            f"{100 * result['overhead']:+.1f} % of the student's step.",
            "",
            *[f"- {key}: {value}" for key, value in about.items()],
            "",
        ]
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT / "configs/detection/faster_rcnn/faster-rcnn_mbv2-fpn_r50-distill_90k_coco.py"
    parser.add_argument("--pair", default=str(default), help="config of a distilled student")
    parser.add_argument("--size", type=int, default=320, help="side of the images, in pixels")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--warmup",
        type=int,
        default=11,
        help="rounds that do not count; DistillHook looks at every value in its first 10",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="Markdown to write, the JSON beside it (default: benchmarks/results/step_cost*.md)",
    )
    parser.add_argument("--peak-of", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    suffix = "" if args.device == "cpu" else "_cuda"
    args.out = args.out or ROOT / f"benchmarks/results/step_cost{suffix}.md"
    if args.rounds < 2:
        parser.error(f"--rounds must be 2 or more for quartiles, got {args.rounds}")
    return args


def main() -> None:
    args = parse_args()
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the Runner takes a GPU where it sees one
    if args.threads:
        torch.set_num_threads(args.threads)
    MMLogger.get_instance("step_cost", log_level="ERROR")  # or every initial weight is told
    if args.peak_of:
        print(peak_bytes(args.peak_of, args))
        return
    memory = peaks()  # first: a process counts its parent's memory as its own until it starts
    result = results(timings(args), memory)
    about = environment(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(about | result, indent=2) + "\n")
    text = markdown(result, about, args.device)
    args.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
