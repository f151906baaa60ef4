"""What distillation adds to a step of Ultralytics' trainer, in time and in memory.

    python benchmarks/yolo_step_cost.py
    python benchmarks/yolo_step_cost.py --pair m-s --device cuda --size 640

Timed in turn, round by round: the training step of the student alone, the step with
DistillCallback and its defaults, the step with Ultralytics' own distill_model, and the forward pass
of the teacher up to its head, whose inputs both compare, as Ultralytics runs it and as
DistillCallback runs it. A plain step and Ultralytics' forward pass of the teacher are called the
floor. A step is all that the trainer does with a batch: preprocessing, forward, backward,
optimizer, EMA and callbacks; loading the batch is not part of it. Each one's peak memory is that of
a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import logging
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import ultralytics
import yaml
from mmengine.logging import MMLogger
from PIL import Image
from step_timing import (
    OBJECTS_PER_IMAGE,
    parse_args,
    peak_bytes,
    peaks,
    settle_batch_norms,
    summary,
    table,
    timings,
    write,
)
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import autocast

from mmkd.engine.ultralytics import DistillCallback, distilling
from mmkd.work_dirs.environment import describe_environment

TRAININGS = ("plain", "ours", "distill_model")
LABELS = {
    "plain": "plain step",
    "ours": "step with DistillCallback",
    "distill_model": "step with `distill_model`",
    "teacher": "teacher up to its head, forward",
    "our_teacher": "the same as DistillCallback runs it",
}
CLASSES = 80


class SteppedTrainer(DetectionTrainer):
    """A trainer that begins a training and leaves its steps to the caller.

    The stock loop cannot be left and entered again. In a thread of its own each trainer would bring
    its own OpenMP threads, and with more of them than cores they wait in another, slower way.
    """

    def begin(self) -> None:
        """All that the stock loop does before its first batch."""
        self._setup_train()
        self.run_callbacks("on_train_start")
        self.optimizer.zero_grad()
        self.epoch = 0
        self.run_callbacks("on_train_epoch_start")
        self._model_train()
        self._batch = next(iter(self.train_loader))

    def step(self) -> None:
        """All that it does with a batch, but for the progress line."""
        self.run_callbacks("on_train_batch_start")
        with autocast(self.amp, device=self.device.type):
            # Copied, for the trainer replaces what the batch holds.
            loss, self.loss_items = self.model(self.preprocess_batch(dict(self._batch)))
            self.loss = loss.sum()
        self.scaler.scale(self.loss).backward()
        self.optimizer_step()
        self.run_callbacks("on_train_batch_end")


def write_noise_scenes(folder: Path, size: int, length: int) -> None:
    """A YOLO set of square images of noise with random boxes: the cost hardly depends on them."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for index in range(length):
        image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(image).save(folder / f"images/{index}.png")
        sides = rng.uniform(0.1, 0.4, (OBJECTS_PER_IMAGE, 2))
        boxes = np.concatenate([rng.uniform(0.2, 0.8, sides.shape), sides], axis=1)
        lines = [" ".join(map(str, (rng.integers(CLASSES), *box))) for box in boxes]
        (folder / f"labels/{index}.txt").write_text("\n".join(lines))
    names = {index: str(index) for index in range(CLASSES)}
    content = dict(path=str(folder.resolve()), train="images", val="images", names=names)
    (folder / "data.yaml").write_text(yaml.safe_dump(content))


def save_teacher(definition: str, file: Path, size: int) -> None:
    """A checkpoint of random weights and features of ordinary size."""
    torch.manual_seed(0)
    teacher = YOLO(definition)
    settle_batch_norms(teacher.model, torch.rand(4, 3, size, size))
    teacher.save(file)


def training(variant: str, student: str, args: argparse.Namespace, folder: Path) -> SteppedTrainer:
    """A trainer that has begun to train the student."""
    model = YOLO(student)
    kind, teacher = SteppedTrainer, str(folder / "teacher.pt")
    settings: dict[str, Any] = dict(
        model=student,
        task="detect",
        mode="train",
        data=str(folder / "data.yaml"),
        imgsz=args.size,
        batch=args.batch_size,
        nbs=args.batch_size,  # so that every step is the optimizer's too
        warmup_epochs=0,
        device="cpu" if args.device == "cpu" else "0",
        optimizer=args.optimizer,
        project=str(folder),
        name=variant,
        plots=False,
        verbose=False,
        **dict.fromkeys(("mosaic", "translate", "scale", "fliplr", "hsv_h", "hsv_s", "hsv_v"), 0.0),
    )
    if variant == "ours":
        DistillCallback(teacher).attach(model)
        kind = distilling(SteppedTrainer)
    elif variant == "distill_model":
        settings["distill_model"] = teacher
    trainer = kind(overrides=settings, _callbacks=model.callbacks)
    trainer.begin()
    return trainer


class UpToHead(nn.Module):
    """A detector's layers as Ultralytics loads and runs them, without the head: float32, in eval
    mode. Returns what the head reads."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        model, _ = load_checkpoint(file)
        *self.layers, self.head = model.model
        self.layers = nn.ModuleList(self.layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        for layer in self.layers:
            sources = [layer.f] if isinstance(layer.f, int) else layer.f
            inputs = [outputs[index] if outputs else images for index in sources]
            outputs.append(layer(inputs[0] if isinstance(layer.f, int) else inputs))
        return [outputs[index] for index in self.head.f]


def stock_teacher(folder: Path, args: argparse.Namespace) -> nn.Module:
    """That of the pair."""
    return UpToHead(folder / "teacher.pt").to(args.device)


def forward_of(
    run: Callable[[Tensor], Any], images: Tensor, args: argparse.Namespace
) -> Callable[[], None]:
    """Runs a teacher as a training step would: without gradients, in the trainer's precision."""

    def forward() -> None:
        with torch.no_grad(), autocast(args.device == "cuda", device=args.device):
            run(images)

    return forward


def noise(args: argparse.Namespace) -> Tensor:
    """Images as the trainer prepares them."""
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch_size, 3, args.size, args.size)
    return torch.rand(shape, generator=generator).to(args.device)


@torch.no_grad()
def deviations(ours: Callable[[Tensor], Any], stock: nn.Module, images: Tensor) -> dict[str, float]:
    """The largest differences of the teacher's features, in standard deviations of the feature."""
    found, expected = list(ours(images).values()), stock(images)
    exact = copy.deepcopy(stock).double()(images.double())

    def largest(some: list[Tensor], others: list[Tensor]) -> float:
        pairs = zip(some, others, exact, strict=True)
        return max(float((a - b).abs().max() / of.std()) for a, b, of in pairs)

    return {
        "ours_from_stock": largest(found, expected),
        "stock_from_exact": largest(expected, exact),
    }


def definitions(pair: str, folder: Path, args: argparse.Namespace) -> str:
    """Prepares the folder for a pair, and names the student's definition."""
    teacher, student = pair.split("-")
    write_noise_scenes(folder, args.size, args.batch_size)
    save_teacher(f"yolov5{teacher}.yaml", folder / "teacher.pt", args.size)
    return f"yolov5{student}.yaml"


def peak_of(variant: str, pair: str, args: argparse.Namespace) -> int:
    """Peak memory of this process after some steps of one variant."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        student = definitions(pair, folder, args)
        if variant in TRAININGS:
            step = training(variant, student, args, folder).step
        else:
            step = forward_of(stock_teacher(folder, args), noise(args), args)
        torch.set_num_threads(args.threads)  # now, for a trainer on the CPU sets its own number
        return peak_bytes(step, args.device)


def measure(pair: str, args: argparse.Namespace, memory: dict[str, int]) -> dict[str, Any]:
    """Medians, quartiles and ratios of one pair."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        student = definitions(pair, folder, args)
        trainers = {each: training(each, student, args, folder) for each in TRAININGS}
        torch.set_num_threads(args.threads)  # now, for a trainer on the CPU sets its own number
        stock, images = stock_teacher(folder, args), noise(args)
        [ours] = trainers["ours"].distillation.teachers.values()
        deviation = deviations(ours.features, stock, images)
        steps = {each: trainer.step for each, trainer in trainers.items()}
        steps["teacher"] = forward_of(stock, images, args)
        steps["our_teacher"] = forward_of(ours.features, images, args)
        timed = summary(timings(steps, args))
    median = timed["seconds"]
    floor = median["plain"] + median["teacher"]
    return {
        **timed,
        "peak_bytes": memory,
        "floor_seconds": floor,
        "floor_of_plain": floor / median["plain"],
        "floor_of_distill_model": floor / median["distill_model"],
        "beyond_floor": (median["ours"] - floor) / median["plain"],
        "ours_of_distill_model": median["ours"] / median["distill_model"],
        "feature_deviation": deviation,
    }


def section(pair: str, result: dict[str, Any], device: str) -> list[str]:
    """What was measured of one pair, in Markdown."""
    teacher, student = pair.split("-")
    shares = {"of a plain step": "plain", "of `distill_model`": "distill_model"}
    deviation = result["feature_deviation"]
    return [
        "",
        f"## YOLOv5{teacher} teaches YOLOv5{student}",
        "",
        *table(LABELS, result, shares, device),
        "",
        "- floor = plain step + teacher up to its head, forward: "
        f"{1000 * result['floor_seconds']:.1f} ms, {result['floor_of_plain']:.3f} of a plain step, "
        f"{result['floor_of_distill_model']:.3f} of `distill_model`",
        f"- DistillCallback beyond the floor: {100 * result['beyond_floor']:+.1f} % of a plain "
        "step",
        f"- DistillCallback / `distill_model`: {result['ours_of_distill_model']:.3f}",
        "- teacher's features, largest difference in standard deviations of the feature: "
        f"{deviation['ours_from_stock']:.1e} between DistillCallback and Ultralytics, "
        f"{deviation['stock_from_exact']:.1e} between Ultralytics in float32 and in float64",
    ]


def environment(args: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "input": f"{args.batch_size} images of {args.size} x {args.size}",
        "precision": "float32" if args.device == "cpu" else "float16 by autocast",
        "optimizer": args.optimizer,
        "rounds": f"{args.rounds} after {args.warmup} of warm-up",
        **describe_environment(args.device),
        "ultralytics": ultralytics.__version__,
    }


def pair_name(text: str) -> str:
    """Checks the name of a pair, as argparse asks for it."""
    if not re.fullmatch("[nsmlx]-[nsmlx]", text):
        raise argparse.ArgumentTypeError(f"expected teacher-student, such as m-s, got {text!r}")
    return text


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pair",
        type=pair_name,
        nargs="+",
        default=["m-s", "s-n"],
        help="sizes of teacher and student among YOLOv5 n, s, m, l, x (default: m-s s-n)",
    )
    parser.add_argument(
        "--optimizer",
        default="SGD",
        help="one of Ultralytics' (default: SGD, whose step costs least)",
    )
    variants = (*TRAININGS, "teacher")
    return parse_args(parser, "yolo_step_cost", variants, batch_size=8, rounds=30, threads=2)


def main() -> None:
    args = read_arguments()
    LOGGER.setLevel(logging.ERROR)
    MMLogger.get_instance("yolo_step_cost", log_level="ERROR")  # or every teacher is described
    if args.peak_of:
        print(peak_of(args.peak_of, args.pair[0], args))
        return
    memory = {pair: peaks((*TRAININGS, "teacher"), "--pair", pair) for pair in args.pair}
    results = {pair: measure(pair, args, memory[pair]) for pair in args.pair}
    lines = ["# Cost of a distilled training step in Ultralytics' trainer"]
    for pair, result in results.items():
        lines += section(pair, result, args.device)
    write(lines, environment(args), {"pairs": results}, args.out)


if __name__ == "__main__":
    main()
