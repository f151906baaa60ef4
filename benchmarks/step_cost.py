"""What distillation adds to a training step, in time and in memory.

    python benchmarks/step_cost.py
    python benchmarks/step_cost.py --device cuda --size 640 --batch-size 8

Four things are timed in turn, round by round, so that a busy machine hurts them alike: the
training step of the student alone, the step with DistillHook and fixed weights and the one with
weights by their share of the gradient (all run by MMEngine's Runner: preprocessing, forward,
backward, optimizer and hooks), and the teacher's backbone without gradients, which no distillation
of its features can do without. The overhead is what the distilled step takes beyond the sum of the
student's step and the teacher's. The cost of a share is the median of the rounds' ratios. Each
one's peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, LOOPS, MODELS, DefaultScope
from mmengine.runner import IterBasedTrainLoop, Runner
from step_timing import (
    OBJECTS_PER_IMAGE,
    ROOT,
    parse_args,
    peak_bytes,
    peaks,
    settle_batch_norms,
    summary,
    table,
    timings,
    write,
)
from torch import nn
from torch.utils.data import Dataset

import mmkd  # noqa: F401  (registers the hook, and stands in for mmcv's operators)
from mmkd.work_dirs.environment import describe_environment

VARIANTS = ("plain", "teacher", "distilled", "balanced")
SHARE = 0.3
LABELS = {
    "plain": "student's step",
    "teacher": "teacher's backbone, forward",
    "distilled": "student's step, distilled",
    "balanced": "student's step, distilled, weights by share",
}


class Noise(Dataset):
    """Square images of noise."""

    METAINFO: ClassVar[dict[str, Any]] = {}

    def __init__(self, size: int, length: int, classes: int) -> None:
        self.size, self.length, self.classes = size, length, classes

    def __len__(self) -> int:
        return self.length

    def image(self, rng: np.random.Generator) -> torch.Tensor:
        """uint8 ``[3, size, size]``."""
        drawn = rng.integers(0, 256, (3, self.size, self.size), dtype=np.uint8)
        return torch.from_numpy(drawn)


@DATASETS.register_module()
class NoiseScenes(Noise):
    """With random boxes: the cost of a step hardly depends on them."""

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
            labels=torch.from_numpy(rng.integers(self.classes, size=len(boxes))),
        )
        return dict(inputs=self.image(rng), data_samples=sample)


@DATASETS.register_module()
class NoiseImages(Noise):
    """With a class each."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        from mmpretrain.structures import DataSample

        rng = np.random.default_rng(index)
        image = self.image(rng)
        sample = DataSample(metainfo=dict(img_shape=(self.size, self.size), sample_idx=index))
        sample.set_gt_label(int(rng.integers(self.classes)))
        return dict(inputs=image, data_samples=sample)


# What a package's models train on.
NOISE = {"mmdet": "NoiseScenes", "mmpretrain": "NoiseImages"}


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


def with_random_weights(config: Config, size: int) -> nn.Module:
    """A model whose features are of ordinary size: then its weights do not change its cost."""
    config.model["backbone"]["init_cfg"] = None
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
    model.init_weights()
    settle_batch_norms(model.backbone, torch.randn(8, 3, size, size))
    return model


def runner_of(config: Config, name: str, args: argparse.Namespace, folder: str) -> Runner:
    """A Runner that has begun to train the config's student, distilled or not."""
    config.load_from = f"{folder}/student.pth"
    torch.save(with_random_weights(config, args.size).state_dict(), config.load_from)
    config.randomness = dict(seed=0)
    # Weights stay: on one batch again and again, an untrained pair would diverge by some terms.
    config.optim_wrapper.optimizer.lr = 1e-8
    config.train_dataloader = dict(
        batch_size=args.batch_size,
        num_workers=0,
        sampler=dict(type="InfiniteSampler"),
        dataset=dict(
            type=NOISE[config.default_scope],
            size=args.size,
            length=max(args.batch_size, 16),
            classes=_classes(config.model),
        ),
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


def _classes(settings: Any) -> int:
    """As many as a model's settings tell apart anywhere."""
    own = settings.get("num_classes", 0) if isinstance(settings, dict) else 0
    inner = settings.values() if isinstance(settings, dict) else settings
    if isinstance(inner, str) or not isinstance(settings, dict | list | tuple):
        return own
    return max([own, *map(_classes, inner)])


def distilled_runner(
    terms: Mapping[str, Any] | None,
    args: argparse.Namespace,
    folder: str,
    name: str,
    config: Config | None = None,
) -> Runner:
    """A Runner that has begun to train a student with these terms.

    Args:
        terms: None: the default.
        args, folder, name: See :func:`runner_of`.
        config: Of the student; None for the pair's.
    """
    config = config or read(args.pair)
    settings = distill_settings(config)
    settings["terms"] = terms
    # One, several by name, or none where it is made from the student.
    given = settings["teacher"]
    teachers = dict(teacher=given) if "config" in given else given
    for source, teacher in teachers.items():
        if isinstance(teacher, Mapping):
            model = with_random_weights(read(teacher["config"]), args.size)
            teacher["checkpoint"] = f"{folder}/{source}.pth"
            torch.save(model.state_dict(), teacher["checkpoint"])
    return runner_of(config, name, args, folder)


def plain_runner(args: argparse.Namespace, folder: str) -> Runner:
    """A Runner that has begun to train the pair's student alone."""
    config = read(args.pair)
    config.custom_hooks = []
    return runner_of(config, "plain", args, folder)


def step_of(variant: str, args: argparse.Namespace, folder: str) -> Callable[[], None]:
    """A function that does once what the variant stands for."""
    settings = distill_settings(read(args.pair))
    if variant == "plain":
        return plain_runner(args, folder).train_loop.step
    if variant != "teacher":
        terms = settings.get("terms") or dict(backbone=dict())
        if variant == "balanced":
            terms = {name: dict(each, weight=dict(share=SHARE)) for name, each in terms.items()}
        return distilled_runner(terms, args, folder, variant).train_loop.step
    model = with_random_weights(read(settings["teacher"]["config"]), args.size)
    model.to(args.device).eval()
    images = torch.randn(args.batch_size, 3, args.size, args.size, device=args.device)

    def forward() -> None:
        with torch.no_grad():
            model.backbone(images)

    return forward


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
    timed = summary(times)
    median = timed["seconds"]
    floor = median["plain"] + median["teacher"]
    return {
        **timed,
        "peak_bytes": memory,
        "step_ratio": median["distilled"] / median["plain"],
        "floor_ratio": floor / median["plain"],
        "overhead": (median["distilled"] - floor) / median["plain"],
        "share_ratio": statistics.median(
            balanced / fixed
            for balanced, fixed in zip(times["balanced"], times["distilled"], strict=True)
        ),
    }


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT / "configs/detection/faster_rcnn/faster-rcnn_mbv2-fpn_r50-distill_90k_coco.py"
    parser.add_argument("--pair", default=str(default), help="config of a distilled student")
    return parse_args(parser, "step_cost", VARIANTS, batch_size=2, rounds=15)


def main() -> None:
    args = read_arguments()
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the Runner takes a GPU where it sees one
    if args.threads:
        torch.set_num_threads(args.threads)
    MMLogger.get_instance("step_cost", log_level="ERROR")  # or every initial weight is told
    if args.peak_of:
        with TemporaryDirectory() as folder:
            print(peak_bytes(step_of(args.peak_of, args, folder), args.device))
        return
    memory = peaks(VARIANTS)
    with TemporaryDirectory() as folder:
        times = timings({variant: step_of(variant, args, folder) for variant in VARIANTS}, args)
    result = results(times, memory)
    lines = [
        "# Cost of a distilled training step",
        "",
        *table(LABELS, result, {"of the student's step": "plain"}, args.device),
        "",
        f"Beyond the student's step and the teacher's forward: "
        f"{100 * result['overhead']:+.1f} % of the student's step.",
        "",
        f"Weights by their share of the gradient, beyond fixed ones: "
        f"{100 * (result['share_ratio'] - 1):+.1f} % of the distilled step.",
    ]
    write(lines, environment(args), result, args.out)


if __name__ == "__main__":
    main()
