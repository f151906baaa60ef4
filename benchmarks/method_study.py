"""Every method on 10,000 photographs of CIFAR-10, from an ordinary and from a strong teacher.

    python benchmarks/method_study.py --data /path/to/cifar10_10k
    python benchmarks/method_study.py --data /path/to/cifar10_10k --only-strong --epochs 10 \\
        --strong /path/to/resnet56_cifar10.safetensors \\
        --runs work_dirs/method_study_strong --out work_dirs/method_study/method_study.md

The student is that of cifar_study.py, on a longer schedule. Its ordinary teacher is trained once;
the strong one is He et al.'s published ResNet-56, tested first. Methods are those of
cifar_settings.py and of configs/classification/methods, but for FSP in two stages, and curricula.
Finished runs are kept under --runs, so the study can be stopped and continued, method by method
(--methods) and seed by seed; what an earlier call has written to --out stays there for the methods
and seeds that this one leaves out. Another number of epochs needs another --runs; --out takes one
schedule a teacher.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar_settings import MAIN, Setting
from cifar_study import folder_name, read_config, set_epochs
from method_results import check_schedule, with_runs, write_results
from method_settings import (
    ALONE,
    CURRICULA,
    ORDINARY,
    PAIRS,
    assistant_itself,
    config_of,
    curricula,
    fitnet_stages,
    hint_epochs,
    settings,
    write_network,
)
from mmengine.config import Config
from strong_teacher import Teacher, strong_teacher
from study import top1

from mmkd.configs import config_file
from mmkd.runs.mmengine.classification import ClassificationRecipe
from mmkd.runs.running import Job, run_all
from mmkd.work_dirs.run_result import RunResult

# Time of an iteration relative to the others', where it is far from theirs: an image and its turns.
COSTS = {"sskd": 4.0}
# Of the student who teaches the one born again, which must not begin from its teacher's own draws.
PEER_SEED = 100


def job(
    name: str,
    setting: Setting,
    seed: int,
    teacher: Teacher,
    args: argparse.Namespace,
    epochs: int | None = None,
) -> Job:
    """A student's training; ``epochs`` for another number than the study's."""
    owner = "alone" if name in ALONE else teacher.name
    folder = args.runs / owner / folder_name(name, seed)
    config = config_of(setting, seed, teacher, args.data, folder)
    set_epochs(config, epochs or args.epochs)
    return Job(name, ClassificationRecipe(config), f"{owner}: {name}", COSTS.get(name, 1.0))


def trained_curricula(teacher: Teacher, args: argparse.Namespace) -> dict[int, dict[str, Setting]]:
    """By seed, after the trainings that they need; of students who teach there is one each."""
    hint, after_hint = fitnet_stages(args.epochs)
    first_epochs = hint_epochs(args.epochs)
    assistant, peer, *hinted = run_all(
        [
            job("assistant itself", assistant_itself(), 0, teacher, args),
            job("plain", MAIN["plain"], PEER_SEED, teacher, args),
            *(job("hint", hint, seed, teacher, args, first_epochs) for seed in args.seeds),
        ],
        args.workers,
    )
    first = dict(config=config_file(teacher.config), checkpoint=teacher.checkpoint)
    students = [
        dict(config=_network_of(run), checkpoint=run.checkpoint) for run in (assistant, peer)
    ]
    return {
        run.seed: curricula(
            first, *students, replace(after_hint, changes=dict(load_from=run.checkpoint))
        )
        for run in hinted
    }


def _network_of(run: RunResult) -> str:
    """The file that it is written to."""
    file = Path(run.work_dir) / "network.py"
    [trained] = (each for each in file.parent.glob("*.py") if each != file)
    return write_network(Config.fromfile(trained), file)


def ordinary(args: argparse.Namespace) -> Teacher:
    """Trained on the same images."""
    config = read_config(ORDINARY.config, 0, args.data, args.runs / "teacher")
    [result] = run_all([Job("teacher", ClassificationRecipe(config), "teacher")])
    [accuracy] = top1([result])
    return replace(ORDINARY, checkpoint=result.checkpoint, accuracy=accuracy)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--strong", type=Path, help="published weights; adds the strong teacher")
    parser.add_argument("--only-strong", action="store_true", help="leaves the other teacher out")
    parser.add_argument("--methods", nargs="+", help="default: all; beside plain, which always is")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("work_dirs/method_study"))
    parser.add_argument("--out", type=Path, help="default: method_study.md beside the runs")
    parser.add_argument(
        "--costs",
        type=Path,
        default=Path("benchmarks/results"),
        help=f"folder of what method_cost.py found, with --pair {' and '.join(PAIRS)}",
    )
    args = parser.parse_args()
    args.data, args.runs = args.data.resolve(), args.runs.resolve()
    methods = settings(args.epochs)
    names = [*methods, *CURRICULA]
    asked = [name for name in names if name in ("plain", *(args.methods or names))]
    if unknown := set(args.methods or ()) - set(names):
        parser.error(f"no method {', '.join(sorted(unknown))}: there are {', '.join(names)}")
    if args.only_strong and not args.strong:
        parser.error("--only-strong needs --strong")
    args.out = args.out or args.runs / "method_study.md"
    file = args.out.with_suffix(".json")
    known: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    ours, published = (each.name for each in PAIRS.values())
    asked_of = [ours] * (not args.only_strong) + [published] * bool(args.strong)
    schedule = args.runs / "epochs"
    if schedule.is_file() and (before := schedule.read_text().strip()) != str(args.epochs):
        parser.error(f"{args.runs} holds trainings of {before} epochs: give another --runs")
    try:
        check_schedule(known, asked_of, args.epochs)
    except ValueError as error:
        parser.error(str(error))
    args.runs.mkdir(parents=True, exist_ok=True)
    schedule.write_text(f"{args.epochs}\n")
    teachers = [] if args.only_strong else [ordinary(args)]
    if args.strong:
        teachers.append(strong_teacher(args.strong, args.data, args.runs / "strong"))
    is_asked = bool(set(asked) & set(CURRICULA))
    guided = {t: trained_curricula(t, args) if is_asked else {} for t in teachers}
    # All methods of one seed before the next, so that a study that is stopped is balanced; what
    # learns alone once for both teachers.
    jobs: dict[Path, Job] = {}
    runs: dict[Teacher, list[Path]] = {t: [] for t in teachers}
    for seed in args.seeds:
        for t in teachers:
            taught = {**methods, **guided[t].get(seed, {})}
            for name in asked:
                each = job(name, taught[name], seed, t, args)
                jobs.setdefault(each.recipe.work_dir, each)
                runs[t].append(each.recipe.work_dir)
    results = dict(zip(jobs, run_all(list(jobs.values()), args.workers), strict=True))
    for t in teachers:
        known = with_runs(known, t, [results[folder] for folder in runs[t]], args.epochs)
    costs = {
        teacher.name: json.loads(found.read_text())
        for pair, teacher in PAIRS.items()
        if (found := args.costs / f"method_cost_{pair}.json").is_file()
    }
    write_results(known, costs, args.out)


if __name__ == "__main__":
    main()
