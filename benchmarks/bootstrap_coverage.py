"""How often the 95% interval of a difference holds the true difference.

    python benchmarks/bootstrap_coverage.py

Two simulated detectors, of which the second finds more objects, on images of three objects each.
Truth is their average precision on 15,000 images; then come many small sets of images, each
compared as `mmkd eval` does. Intervals of the figures themselves are shown to tell why they are not
offered: on few images average precision is too high. Then come detectors whose seeds find more or
fewer objects, with the intervals of one seed's way, over images, and those over seeds and images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from study import report

from mmkd.evaluation.bootstrap import bootstrap
from mmkd.evaluation.coco import CocoSettings, Evaluation, evaluate
from mmkd.evaluation.coco_files import Annotations, Detections
from mmkd.evaluation.intervals import SeedMargin, interval_of, seed_margin

SETTINGS = CocoSettings(dict(all=(0.0, 1e10)), (100,))
RATES = (0.55, 0.65)
OBJECTS, SIDE = 3, 50.0
CASES = ((20, 60, 200), (10, 200, 150), (60, 80, 100), (5, 500, 60))
# Of the rates from seed to seed: some two points of mAP.
SEED_DEVIATION = 0.03
SEEDS = (2, 3, 5)
SEED_CASES = ((10, 60, 120), (10, 200, 120))


def simulated(
    generator: np.random.Generator, classes: int, num_images: int, rates: Sequence[float]
) -> tuple[Annotations, list[Detections]]:
    """Objects of uneven classes, found as often as the detector's rate says; boxes shifted, and
    some two false boxes an image. Half of an object's chance is its image's own, for both alike."""
    frequencies = 1 / np.arange(1, classes + 1) ** 0.8
    frequencies /= frequencies.sum()
    total = OBJECTS * num_images
    image = np.repeat(np.arange(num_images), OBJECTS)
    category = generator.choice(classes, total, p=frequencies)
    boxes = np.tile([0.0, 0.0, SIDE, SIDE], (total, 1))
    boxes[:, 0] = np.tile(2 * SIDE * np.arange(OBJECTS), num_images)
    annotations = Annotations(
        Path("simulated"), "", list(range(num_images)), [""] * num_images,
        list(range(classes)), [str(each) for each in range(classes)],
        image, category, boxes, np.full(total, SIDE**2), np.zeros(total, bool),
    )  # fmt: skip
    difficulty = np.repeat(generator.random(num_images), OBJECTS)
    runs = []
    for rate in rates:
        found = generator.random(total) < 0.5 * rate + 0.5 * (difficulty < rate)
        own = boxes[found]
        own[:, 0] += np.abs(generator.normal(0, 8, len(own)))
        elsewhere = np.repeat(np.arange(num_images), generator.poisson(2, num_images))
        false = np.tile([10 * SIDE, 0.0, SIDE, SIDE], (len(elsewhere), 1))
        false[:, 0] += 1.2 * SIDE * np.arange(len(elsewhere))
        runs.append(
            Detections(
                Path("simulated"),
                np.concatenate([image[found], elsewhere]),
                np.concatenate(
                    [category[found], generator.choice(classes, len(elsewhere), p=frequencies)]
                ),
                np.concatenate([own, false]),
                np.concatenate(
                    [generator.normal(1, 1, len(own)), generator.normal(0, 1, len(false))]
                ),
                "",
            )
        )
    return annotations, runs


def figures(evaluations: list[Evaluation]) -> NDArray[np.float64]:
    """mAP of the first, of the second, and their difference."""
    first, second = (each.metrics["mAP"] for each in evaluations)
    return np.array([first, second, second - first])


def evaluated(
    generator: np.random.Generator,
    classes: int,
    num_images: int,
    rates: Sequence[float] = RATES,
) -> list[Evaluation]:
    annotations, runs = simulated(generator, classes, num_images, rates)
    return [evaluate(annotations, run, SETTINGS) for run in runs]


def with_seeds(classes: int, num_images: int, trials: int) -> list[str]:
    """A row a number of seeds: how often either interval holds the truth."""
    generator = np.random.default_rng(classes + num_images)
    truth = figures(evaluated(generator, classes, 15_000))[2]
    held = {count: np.zeros(2) for count in SEEDS}
    spreads = []
    for trial in range(trials):
        moved = [rate + generator.normal(0, SEED_DEVIATION, max(SEEDS)) for rate in RATES]
        evaluations = evaluated(generator, classes, num_images, np.concatenate(moved).tolist())
        draws = bootstrap(evaluations, 300, trial).metrics[..., 0]
        values = [each.metrics["mAP"] for each in evaluations]
        spreads.append(np.std(values[: max(SEEDS)], ddof=1))
        for count in SEEDS:
            base, own = slice(0, count), slice(max(SEEDS), max(SEEDS) + count)
            both = seed_margin(values[own], values[base], paired=True, is_one_network=False)
            change = draws[own].mean(0) - draws[base].mean(0)
            for index, margin in enumerate((SeedMargin(), both)):
                found = interval_of(float(np.mean(both.seeds)), change, margin)
                held[count][index] += found.low <= truth <= found.high
    return [
        f"| {classes} | {num_images} | {trials} | {truth:.1f} | {np.mean(spreads):.1f} | {count} | "
        f"{images / trials:.0%} | {both / trials:.0%} |"
        for count, (images, both) in held.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/bootstrap_coverage.md")
    )
    args = parser.parse_args()
    lines = [
        "| classes | images | sets | true difference | mean found | intervals that hold it | "
        "mAP too high by | intervals that hold mAP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for classes, num_images, trials in CASES:
        generator = np.random.default_rng(classes)
        truth = figures(evaluated(generator, classes, 15_000))
        held, found = np.zeros(3), np.zeros(3)
        for trial in range(trials):
            evaluations = evaluated(generator, classes, num_images)
            first, second = bootstrap(evaluations, 300, trial).metrics[..., 0]
            draws = np.stack([first, second, second - first])
            low, high = np.percentile(draws, (2.5, 97.5), axis=1)
            held += (low <= truth) & (truth <= high)
            found += figures(evaluations)
        bias = found / trials - truth
        lines.append(
            f"| {classes} | {num_images} | {trials} | {truth[2]:.1f} | "
            f"{found[2] / trials:.1f} | {held[2] / trials:.0%} | "
            f"{bias[:2].mean():.1f} | {held[:2].mean() / trials:.0%} |"
        )
    rows = [row for case in SEED_CASES for row in with_seeds(*case)]
    lines += [
        "",
        "| classes | images | sets | true difference | spread of the seeds | seeds | "
        "intervals over images that hold it | over seeds and images |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    report(["# Coverage of the 95% intervals", "", *lines], args.out)


if __name__ == "__main__":
    main()
