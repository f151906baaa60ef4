"""YOLO detectors: plain, distilled by mmkd, distilled by Ultralytics' own distill_model.

    python benchmarks/yolo_accuracy.py digits
    python benchmarks/yolo_accuracy.py bccd --data /path/to/bccd

All students share data, schedule and initial weights; the same teacher serves both distillations,
and pycocotools scores the weights of the last epoch. Finished runs are kept under --runs, so the
study can be stopped and continued, or shared among processes that are given different --seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from study import report, score_table

from mmkd.configs import config_file
from mmkd.data.digits import make_digits
from mmkd.data.to_yolo import coco_to_yolo
from mmkd.engine.ultralytics.train import read_settings
from mmkd.runs.running import Job, run_all
from mmkd.runs.ultralytics.recipe import YOLORecipe

TEACHERS = {"digits": "yolov5m-small_digits", "bccd": "yolov5m-small_bccd"}
STUDENTS = {"digits": "yolov5n-small_digits", "bccd": "yolov5n-small_bccd"}
ABOUT = {
    "digits": "1000 pictures of handwritten digits at 96 x 96 (`mmkd data digits`), scored on 200 "
    "others.",
    "bccd": "205 photographs of blood cells, scored on the 72 of the test split.",
}


def prepare_data(name: str, source: Path | None, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The data set's YAML file, and what a recipe needs to know of its annotations."""
    if name == "digits":
        data = make_digits(folder, layout="both")
        return data / "data.yaml", dict(
            training_annotations=data / "annotations/train.json",
            training_images=data / "train",
            annotations=data / "annotations/val.json",
            images=data / "val",
        )
    if source is None:
        raise SystemExit("bccd needs --data, the folder of the set in COCO's format")
    images = source / "images"
    splits = {split: (source / f"{split}.json", images) for split in ("train", "val", "test")}
    made = coco_to_yolo(folder, splits)
    return made.data_yaml, dict(
        training_annotations=source / "train.json",
        training_images=images,
        annotations=source / "test.json",
        images=images,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=TEACHERS)
    parser.add_argument("--data", type=Path, help="folder of the BCCD set")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, help="default: work_dirs/yolo_accuracy/<set>")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/yolo_<set>.md")
    args = parser.parse_args()
    runs = args.runs or Path("work_dirs/yolo_accuracy") / args.set
    data, scored = prepare_data(args.set, args.data, runs / "data")

    def job(name: str, config: str, seed: int, folder: str, **changes: Any) -> Job:
        settings = read_settings(config_file(f"yolo/{args.set}/{config}.yaml"))
        settings |= dict(data=str(data.resolve()), seed=seed, **changes)
        return Job(name, YOLORecipe(settings, runs / folder, **scored), name)

    [teacher] = run_all([job("teacher", TEACHERS[args.set], 0, "teacher")])
    student = STUDENTS[args.set]
    jobs = []
    for seed in args.seeds:
        jobs += [
            job("plain", student, seed, f"plain_seed{seed}"),
            job("mmkd", f"{student}_distill", seed, f"mmkd_seed{seed}", teacher=teacher.checkpoint),
            job(
                "`distill_model`",
                student,
                seed,
                f"distill_model_seed{seed}",
                distill_model=teacher.checkpoint,
            ),
        ]
    results = run_all(jobs)
    report(
        [
            f"# YOLOv5 on {args.set}",
            "",
            f"{ABOUT[args.set]} From scratch; configs/yolo/{args.set}.",
            "",
            *score_table([teacher, *results]),
        ],
        args.out or Path(f"benchmarks/results/yolo_{args.set}.md"),
    )


if __name__ == "__main__":
    main()
