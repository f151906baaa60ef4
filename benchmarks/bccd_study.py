"""Blood cells: teacher, plain, distilled and ensemble-distilled student, several seeds.

    python benchmarks/bccd_study.py --data /path/to/bccd

Scores are those of the test split. Finished runs are kept under --runs, so the study can be stopped
and continued.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from mmengine.config import Config
from study import report, score_table

from mmkd.configs import config_file
from mmkd.runs.mmengine.recipes import MMRecipe
from mmkd.runs.running import Job, run_all

CONFIGS = {
    "plain": "faster-rcnn_r18-w8_bccd.py",
    "distilled": "faster-rcnn_r18-w8_bccd_distill.py",
    "ensemble": "faster-rcnn_r18-w8_bccd_ensemble.py",
}


def bccd_config(file: str, seed: int, data: Path, work_dir: Path) -> Config:
    """A config of configs/detection/bccd on the data set in ``data``, scored on its test split."""
    config = Config.fromfile(config_file(f"detection/bccd/{file}"))
    config.work_dir = str(work_dir)
    config.randomness = dict(seed=seed)
    for split in ("train", "val", "test"):
        config[f"{split}_dataloader"].dataset.data_root = f"{data}/"
    config.val_dataloader.dataset.ann_file = "test.json"
    config.val_evaluator.ann_file = f"{data}/test.json"
    return config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the BCCD set")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("work_dirs/bccd"))
    parser.add_argument("--threads", type=int, help="of the CPU (default: torch's choice)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bccd.md"))
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    teacher_config = bccd_config("faster-rcnn_r18-w16_bccd.py", 0, args.data, args.runs / "teacher")
    [teacher] = run_all([Job("teacher", MMRecipe(teacher_config), "teacher")])
    jobs = []
    for seed in range(args.seeds):
        for name, file in CONFIGS.items():
            config = bccd_config(file, seed, args.data, args.runs / f"{name}_seed{seed}")
            if name != "plain":
                config.custom_hooks[0].teacher.checkpoint = teacher.checkpoint
            jobs.append(Job(name, MMRecipe(config), name))
    results = run_all(jobs)
    report(
        [
            "# Blood cells (BCCD)",
            "",
            "Trained on 205 photographs at 192 x 144 from scratch, scored on the 72 of the test "
            "split.",
            "",
            *score_table([teacher, *results]),
        ],
        args.out,
    )


if __name__ == "__main__":
    main()
