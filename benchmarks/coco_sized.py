"""Time and memory of `mmkd eval` on input of the size of COCO's val2017.

    python benchmarks/coco_sized.py

5,000 images of 80 classes with some 36,000 objects, and 500,000 detections a run, made at random
from a fixed seed: many near the objects, some of them of another class, and many anywhere.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from study import report

IMAGES, CLASSES, OBJECTS_AN_IMAGE, DETECTIONS_AN_IMAGE = 5000, 80, 7.3, 100
WIDTH, HEIGHT = 640, 480


def random_boxes(generator: np.random.Generator, count: int) -> np.ndarray:
    """``[count, 4]`` in pixels, within the picture; COCO's mix of sizes, roughly."""
    sizes = np.exp(generator.normal(3.8, 1, (count, 2))).clip(4, 400)
    corners = generator.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - sizes)
    return np.hstack([corners, sizes])


def make_truth(generator: np.random.Generator) -> dict[str, Any]:
    """Classes as uneven as COCO's, one object in a hundred a crowd."""
    frequencies = 1 / np.arange(1, CLASSES + 1) ** 0.8
    counts = generator.poisson(OBJECTS_AN_IMAGE, IMAGES)
    total = int(counts.sum())
    boxes = random_boxes(generator, total)
    labels = generator.choice(CLASSES, total, p=frequencies / frequencies.sum())
    crowds = generator.random(total) < 0.01
    images = np.repeat(np.arange(IMAGES), counts)
    return dict(
        images=[
            dict(id=k + 1, width=WIDTH, height=HEIGHT, file_name=f"{k + 1:012d}.jpg")
            for k in range(IMAGES)
        ],
        categories=[dict(id=k + 1, name=f"class {k + 1}") for k in range(CLASSES)],
        annotations=[
            dict(
                id=k + 1,
                image_id=int(images[k]) + 1,
                category_id=int(labels[k]) + 1,
                bbox=boxes[k].tolist(),
                area=float(0.7 * boxes[k, 2] * boxes[k, 3]),
                iscrowd=int(crowds[k]),
            )
            for k in range(total)
        ],
    )


def make_detections(
    generator: np.random.Generator, truth: dict[str, Any], noise: float
) -> list[dict[str, Any]]:
    """The same number on every image; the less noise, the better they fit."""
    image = np.repeat(np.arange(1, IMAGES + 1), DETECTIONS_AN_IMAGE)
    total = len(image)
    boxes, labels = random_boxes(generator, total), generator.integers(1, CLASSES + 1, total)
    scores = generator.beta(1, 4, total)
    # Half of them lie near an object of their image, where it has one.
    of_object = np.array([each["image_id"] for each in truth["annotations"]])
    first = np.searchsorted(of_object, np.arange(1, IMAGES + 2))
    counts = np.diff(first)[image - 1]
    near = (counts > 0) & (generator.random(total) < 0.5)
    source = first[image - 1] + (generator.random(total) * counts).astype(int)
    source = source[near]
    objects = np.array([each["bbox"] for each in truth["annotations"]])[source]
    shift = generator.normal(0, noise, (len(source), 4))
    sizes = objects[:, 2:]
    boxes[near] = np.hstack([objects[:, :2] + shift[:, :2] * sizes, sizes * np.exp(shift[:, 2:])])
    own = np.array([each["category_id"] for each in truth["annotations"]])[source]
    labels[near] = np.where(generator.random(len(source)) < 0.7, own, labels[near])
    scores[near] = generator.beta(2, 2, len(source))
    columns = (image, labels, boxes.round(2), scores)
    return [
        dict(image_id=which, category_id=label, bbox=box, score=score)
        for which, label, box, score in zip(*(each.tolist() for each in columns), strict=True)
    ]


def measured(arguments: list[str]) -> tuple[float, float]:
    """Seconds, and the peak of the memory that all its processes hold together, in GiB."""
    start = time.perf_counter()
    command = [sys.executable, "-c", "from mmkd.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    root, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        total = 0
        for each in [root, *root.children(recursive=True)]:
            try:
                # Pages that processes share count once.
                total += each.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        peak = max(peak, total)
        time.sleep(0.2)
    if process.returncode:
        raise SystemExit(process.stderr.read().decode())
    return time.perf_counter() - start, peak / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/coco_sized.md"))
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = make_truth(generator)
        files = {"truth": folder / "truth.json"}
        files["truth"].write_text(json.dumps(truth))
        for run, noise in (("plain", 0.1), ("distilled", 0.08)):
            files[run] = folder / f"{run}.json"
            files[run].write_text(json.dumps(make_detections(generator, truth, noise)))
        plain, distilled = (f"{run}={files[run]}" for run in ("plain", "distilled"))
        cases = {
            "one file, no intervals": [plain, "--resamples", "0"],
            "one file, no intervals, faster-coco-eval": [plain, "--backend", "faster"],
            "two files, 1,000 resamples": [plain, distilled],
        }
        lines = ["| `mmkd eval` | time, s | peak memory, GiB |", "|---|---|---|"]
        for case, arguments in cases.items():
            seconds, memory = measured(["eval", str(files["truth"]), *arguments])
            lines.append(f"| {case} | {seconds:.0f} | {memory:.1f} |")
    report(
        [
            "# Evaluation at the size of COCO",
            "",
            f"{IMAGES:,} images, {CLASSES} classes, {len(truth['annotations']):,} objects, "
            f"{IMAGES * DETECTIONS_AN_IMAGE:,} detections a file, {psutil.cpu_count()} cores; "
            "whole commands, from the start of Python to the printed tables.",
            "",
            *lines,
        ],
        args.out,
    )


if __name__ == "__main__":
    main()
