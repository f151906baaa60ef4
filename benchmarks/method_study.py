"""Every method on 10,000 photographs of CIFAR-10, from an ordinary and from a strong teacher.

    python benchmarks/method_study.py --data /path/to/cifar10_10k
    python benchmarks/method_study.py --data /path/to/cifar10_10k \\
        --strong /path/to/resnet56_cifar10.safetensors

The student is that of cifar_study.py, on a longer schedule. Its ordinary teacher is trained once;
the strong one is He et al.'s published ResNet-56, tested first. Every method of cifar_settings.py
and of configs/classification/methods has its published weight. Finished runs are kept under --runs,
so the study can be stopped and continued, method by method (--methods) and seed by seed; what an
earlier call has written to --out stays there for the methods and seeds that this one leaves out.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar_settings import MAIN, Setting
from cifar_study import TEACHER, folder_name, read_config, set_epochs, student_config
from method_results import with_runs, write_results
from mmengine.config import Config
from published_methods import PublishedMethod, published_methods
from strong_teacher import Teacher, strong_teacher
from study import top1

from mmkd.configs import config_file
from mmkd.runs.mmengine.classification import ClassificationRecipe
from mmkd.runs.running import Job, run_all
from mmkd.work_dirs.run_result import RunResult

# Its name in method_cost.py.
PAIR = "cifar10_10k"
IMAGES, BATCH = 10_000, 64
CURRICULA = ("assistant", "densely guided", "born again")
ASSISTANT_DEPTH = 14
# Of the schedule, what the published pairs spend on rises and on first stages.
RISE = 20 / 240
FIRST_STAGES = dict(paraphrase=30 / 240, pretext=60 / 240, initial=20 / 240)


def published(epochs: int) -> dict[str, Setting]:
    """The methods of configs/classification/methods, on a schedule of so many epochs."""
    return {
        name: Setting(
            {key: _scaled(term, epochs) for key, term in method.terms.items()},
            model=_model(method),
            teacher=method.teacher,
        )
        for name, method in published_methods().items()
    }


def _model(method: PublishedMethod) -> dict[str, Any]:
    model: dict[str, Any] = dict(head=dict(method.head)) if method.head else {}
    if method.preprocessor is not None:
        model["data_preprocessor"] = dict(type=method.preprocessor)
    return model


def _scaled(term: dict[str, Any], epochs: int) -> dict[str, Any]:
    """What counts images and epochs, for this set and schedule."""
    if "ramp" in term.get("schedule", {}):
        term["schedule"]["ramp"] = RISE * epochs
    epoch = IMAGES // BATCH
    for key, part in FIRST_STAGES.items():
        if key in term:
            term[key] = round(part * epochs * epoch)
    if "every" in term:
        term["every"] = epoch
    if "num_images" in term:
        term.update(num_images=IMAGES, negatives=4096)
    return term


def settings(epochs: int) -> dict[str, Setting]:
    """All methods by name, the plain student first."""
    return {**MAIN, **published(epochs)}


def job(name: str, setting: Setting, seed: int, teacher: Teacher, args: argparse.Namespace) -> Job:
    """A student's training."""
    if "teacher_channels" in setting.model.get("head", {}):
        head = {**setting.model["head"], "teacher_channels": teacher.width}
        setting = replace(setting, model={**setting.model, "head": head})
    folder = args.runs / teacher.name / folder_name(name, seed)
    config = student_config(setting, seed, args.data, folder, teacher.checkpoint)
    for hook in config.custom_hooks if setting.teacher is None else ():
        hook.teacher.config = config_file(teacher.config)
    set_epochs(config, args.epochs)
    return Job(name, ClassificationRecipe(config), f"{teacher.name}: {name}")


def curricula(teacher: Teacher, args: argparse.Namespace) -> dict[str, Setting]:
    """Students by KD whose teachers are students themselves, which are trained here before them.

    TAKD's assistant has the student's width and the depth of the ordinary teacher. DGKD's student
    has the sum of what it would have with either teacher, and goes without one in a quarter of the
    iterations.
    """
    kd = MAIN["KD, T = 4"]
    depth = dict(model=dict(kd.model, backbone=dict(depth=ASSISTANT_DEPTH)))
    jobs = [
        job("assistant itself", replace(kd, **depth), 0, teacher, args),
        job("plain", MAIN["plain"], 0, teacher, args),
    ]
    trained = run_all(jobs, args.workers)
    assistant, peer = (
        dict(config=_network(run, Path(run.work_dir) / "network.py"), checkpoint=run.checkpoint)
        for run in trained
    )
    first = dict(config=config_file(teacher.config), checkpoint=teacher.checkpoint)
    densely = {
        source: dict(kd.terms["kd"], source=source, schedule=dict(drop=0.25))
        for source in ("teacher", "assistant")
    }
    both = dict(head=dict(loss=dict(loss_weight=0.2)))
    return {
        "assistant": replace(kd, teacher=assistant),
        "densely guided": Setting(densely, None, both, dict(teacher=first, assistant=assistant)),
        "born again": replace(kd, teacher=peer),
    }


def _network(run: RunResult, file: Path) -> str:
    """Writes what a run has trained as a teacher's config."""
    [trained] = (each for each in file.parent.glob("*.py") if each != file)
    Config(dict(model=Config.fromfile(trained).model, default_scope="mmpretrain")).dump(file)
    return str(file)


def ordinary(args: argparse.Namespace) -> Teacher:
    """Trained on the same images."""
    config = read_config(TEACHER, 0, args.data, args.runs / "teacher")
    [result] = run_all([Job("teacher", ClassificationRecipe(config), "teacher")])
    [accuracy] = top1([result])
    return Teacher("ordinary", TEACHER, result.checkpoint, 128, accuracy)


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
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/method_study.md"))
    parser.add_argument(
        "--cost",
        type=Path,
        default=Path(f"benchmarks/results/method_cost_{PAIR}.json"),
        help=f"of method_cost.py --pair {PAIR}; left out where there is none",
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
    file = args.out.with_suffix(".json")
    known: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    teachers = [] if args.only_strong else [ordinary(args)]
    if args.strong:
        teachers.append(strong_teacher(args.strong, args.data, args.runs / "strong"))
    taught = {t: dict(methods) for t in teachers}
    for t in teachers if set(asked) & set(CURRICULA) else ():
        taught[t] |= curricula(t, args)
    # All methods of one seed before the next, so that a study that is stopped is balanced.
    keys = [(t, seed, name) for seed in args.seeds for t in teachers for name in asked]
    jobs = [job(name, taught[t][name], seed, t, args) for t, seed, name in keys]
    results = run_all(jobs, args.workers)
    for t in teachers:
        own = [r for (of, _, _), r in zip(keys, results, strict=True) if of is t]
        known = with_runs(known, t, own, args.epochs)
    cost = json.loads(args.cost.read_text()) if args.cost.is_file() else None
    write_results(known, cost, args.out)


if __name__ == "__main__":
    main()
