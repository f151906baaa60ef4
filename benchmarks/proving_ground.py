"""The proving ground: does distillation help, cell by cell, and which setting of it?

    python benchmarks/proving_ground.py --data /path/to/sets

A cell is a data set, a pair of detectors and a start; each is trained plain, with mmkd's defaults,
with other settings of mmkd's, and (YOLO) with Ultralytics' own distill_model; from the same initial
weights, in the same order of the data, on the same schedule. Finished runs are kept under --runs,
so the study can be stopped and continued, cell by cell and arm by arm; what an earlier call has
written to --out stays there for the cells and arms that this one leaves out, or trains with fewer
seeds. On a larger machine: --longer 4 --larger 2 --device 0.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from method_arms import applies, method_of
from proving_arms import DEFAULT, arm_of
from proving_cells import CELLS, DISTILL_MODEL, PLAIN_ARM, TEACHER_ARM, Arm, Cell, Study
from proving_results import merged, summary, write_summaries

from mmkd.evaluation.comparison import BASELINE
from mmkd.runs.paired import check_same_start
from mmkd.runs.running import Job, run_all
from mmkd.work_dirs.run_result import RunResult


def run_cells(
    study: Study, cells: Sequence[Cell], arms: Sequence[str], seeds: Sequence[int], workers: int
) -> dict[str, list[RunResult]]:
    """Trains what was not trained before; results by cell, plain runs first, the teacher last."""

    def job(cell: Cell, arm: Arm, seed: int) -> Job:
        return Job(arm.name, cell.recipe(study, arm, seed), f"{cell.name}, {arm.name}")

    donors = [CELLS[cell.start] for cell in cells if cell.start is not None]
    scratch = [cell for cell in {c.name: c for c in (*cells, *donors)}.values() if not cell.start]
    started = [cell for cell in cells if cell.start]
    # What others start from or learn from comes before them.
    run_all([job(cell, TEACHER_ARM, 0) for cell in scratch], workers)
    run_all([job(cell, PLAIN_ARM, 0) for cell in donors], workers)
    run_all([job(cell, TEACHER_ARM, 0) for cell in started], workers)
    keys = [
        (cell, arm_of(arm, cell), seed)
        for seed in seeds
        for cell in cells
        for arm in arms
        if _is_run(cell, arm)
    ]
    results = run_all([job(*key) for key in keys], workers)
    teachers = run_all([job(cell, TEACHER_ARM, 0) for cell in cells])
    found: dict[str, list[RunResult]] = {}
    for cell, teacher in zip(cells, teachers, strict=True):
        own = [r for (of, _, _), r in zip(keys, results, strict=True) if of is cell]
        check_same_start(own)
        found[cell.name] = [*sorted(own, key=lambda r: (r.name != BASELINE, r.seed)), teacher]
    return found


def _is_run(cell: Cell, arm: str) -> bool:
    """Whether the cell's detector can be trained so."""
    methods = map(method_of, arm.split("+"))
    does_apply = all(applies(method, cell) for method in methods if method is not None)
    return does_apply and (cell.is_yolo or arm != DISTILL_MODEL)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of bccd and neu_det")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument(
        "--arms",
        nargs="+",
        default=[DEFAULT, DISTILL_MODEL],
        help="distill_model, methods such as fgd, fgd-s0.5 or cwd-w3 (see method_arms.py), or "
        "settings such as all-s0.3 (see proving_arms.py), each with -twice at its end on twice the "
        "epochs; "
        f"{DEFAULT} is mmkd's default; beside plain, which always is",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time")
    parser.add_argument("--longer", type=float, default=1.0, help="factor of all epochs")
    parser.add_argument("--larger", type=float, default=1.0, help="factor of the images' side")
    parser.add_argument("--device", default="cpu", help="of Ultralytics' trainings")
    parser.add_argument("--runs", type=Path, default=Path("work_dirs/proving_ground"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/proving_ground.json"))
    args = parser.parse_args()
    arms = list(dict.fromkeys([BASELINE, *args.arms]))
    study = Study(args.data.resolve(), args.runs.resolve(), args.longer, args.larger, args.device)
    cells = [CELLS[name] for name in args.cells]
    results = run_cells(study, cells, arms, args.seeds, args.workers)
    known: dict[str, Any] = json.loads(args.out.read_text()) if args.out.is_file() else {}
    for name, of_cell in results.items():
        known[name] = merged(known.get(name, {}), summary(CELLS[name], of_cell))
    write_summaries({name: known[name] for name in CELLS if name in known}, args.out)


if __name__ == "__main__":
    main()
