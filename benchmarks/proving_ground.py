"""The proving ground: does distillation help, cell by cell, and which setting of it?

    python benchmarks/proving_ground.py --data /path/to/sets

A cell is a data set, a pair of detectors and a start; each is trained plain, with mmkd's defaults,
with other settings of mmkd's, and (YOLO) with Ultralytics' own distill_model; from the same initial
weights, in the same order of the data, on the same schedule. Finished runs are kept under --runs,
so the study can be stopped and continued, cell by cell and arm by arm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from proving_arms import terms_of
from proving_cells import CELLS, DISTILL_MODEL, Cell, Scale, Terms

from mmkd.evaluation.comparison import BASELINE, TEACHER
from mmkd.runs.running import Job, run_all

DEFAULT = "default"
# The plain student on twice the schedule: whether the schedule is long enough.
TWICE = "plain_twice"


def jobs_of(
    cell: Cell, arm: str, terms: Terms, seed: int, source: Path, runs: Path, scale: Scale
) -> Job:
    longer = 2.0 if arm == TWICE else 1.0
    recipe = cell.recipe(source, runs, arm, seed, terms, scale, longer)
    return Job(arm, recipe, f"{cell.name} {arm}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of bccd and neu_det")
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=list(CELLS))
    parser.add_argument("--arms", nargs="*", default=[BASELINE, DEFAULT, DISTILL_MODEL])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("work_dirs/proving_ground"))
    args = parser.parse_args()
    scale = Scale()
    cells = [CELLS[name] for name in args.cells]
    source, runs = args.data.resolve(), args.runs.resolve()
    teachers = [jobs_of(cell, TEACHER, None, 0, source, runs, scale) for cell in cells]
    run_all(teachers, args.workers)
    jobs = [
        jobs_of(
            cell,
            arm,
            None if arm in (BASELINE, DEFAULT, TWICE) else terms_of(arm, cell),
            seed,
            source,
            runs,
            scale,
        )
        for seed in args.seeds
        for cell in cells
        for arm in args.arms
        if (arm != DISTILL_MODEL or cell.is_yolo)
    ]
    results = run_all(jobs, args.workers)
    for job, r in zip(jobs, results, strict=True):
        print(job.title, r.seed, round(r.scores["mAP"], 1), round(r.training_seconds))


if __name__ == "__main__":
    main()
