"""Which view, which stages and which weight serve detection: the demo's pair, one seed each.

    python benchmarks/digits_sweep.py

The papers leave them open for detectors. Finished runs are kept under --runs, so the sweep can be
stopped and continued; teacher and plain student are those of `mmkd demo --out` of the same folder.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import torch
from study import report, score_table

from mmkd.data.digits import make_digits
from mmkd.demo import NUM_TRAIN, NUM_VAL, digits_config
from mmkd.runs.mmengine.recipes import MMRecipe
from mmkd.runs.running import Job, run_all

VIEWS = ("dense", "global")
STAGES = {"last": ("layer4",), "all": ("layer1", "layer2", "layer3", "layer4")}
WEIGHTS = (0.3, 1.0, 3.0, 10.0)


def terms(view: str, stages: str, weight: float) -> dict[str, Any]:
    """One term a stage; the weight is shared out among them."""
    layers = STAGES[stages]
    return {
        layer: dict(
            student=f"backbone.{layer}",
            teacher=f"backbone.{layer}",
            view=view,
            weight=weight / len(layers),
        )
        for layer in layers
    }


def ensemble_terms(weight: float) -> dict[str, Any]:
    """The projector ensemble on the last stage."""
    return dict(
        ensemble=dict(
            projector=dict(type="mmkd.ProjectorEnsemble"),
            normalizer=dict(type="mmkd.IdentityNormalizer"),
            loss=dict(type="mmkd.DirectionAlignmentLoss"),
            weight=weight,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("work_dirs/demo"))
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/digits_sweep.md"))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    data = make_digits(args.runs / "data", num_train=NUM_TRAIN, num_val=NUM_VAL)
    fixed = {role: digits_config(role, 0, data, args.runs) for role in ("teacher", "plain")}
    teacher, plain = run_all([Job(role, MMRecipe(config), role) for role, config in fixed.items()])
    settings = {
        f"{view}, {stages} stage{'s' * (stages == 'all')}, weight {weight:g}": terms(
            view, stages, weight
        )
        for view, stages, weight in itertools.product(VIEWS, STAGES, WEIGHTS)
    }
    settings |= {
        f"ensemble, dense, last stage, weight {weight:g}": ensemble_terms(weight)
        for weight in (2.5, 25.0, 250.0)
    }
    jobs = []
    for name, of_name in settings.items():
        config = digits_config("distilled", 0, data, args.runs)
        config.work_dir = str(args.runs / "sweep" / name.replace(", ", "_").replace(" ", "-"))
        config.custom_hooks[0].teacher.checkpoint = teacher.checkpoint
        config.custom_hooks[0].terms = of_name
        jobs.append(Job(name, MMRecipe(config), name))
    results = run_all(jobs)
    report(
        [
            "# View, stages and weight on the digits set",
            "",
            "One seed each; the same student and schedule as `mmkd demo`.",
            "",
            *score_table([teacher, plain, *results]),
        ],
        args.out,
    )


if __name__ == "__main__":
    main()
