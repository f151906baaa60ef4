"""The papers' figures of what goes on inside a distillation, repeated small.

    python benchmarks/dynamics_study.py --data /path/to/cifar10_10k --workers 2

On 10,000 photographs of CIFAR-10, a ResNet-14 teaches a ResNet-8 of its width, or a small vision
transformer; on the digits, a Faster R-CNN one of half its width. Each setting is recorded after
every epoch (mmkd.DynamicsHook). Finished runs are kept under --runs, so the study can be stopped
and continued, figure by figure (--figures) and seed by seed; the table tells what is there.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from alignment_study import WARM_UP, Alignment, classifier_of
from cifar_study import folder_name, read_config, set_epochs
from dynamics_figures import BLOCK, FIGURES, Figure, Recorded
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from study import report, top1, trend_table

from mmkd.analysis import translational_equivariance
from mmkd.checkpoint import read_weights
from mmkd.data.digits import make_digits
from mmkd.demo import NUM_TRAIN, NUM_VAL, digits_config
from mmkd.dynamics_file import DYNAMICS_FILE, DynamicsRow, read_dynamics
from mmkd.engine.mmengine.spread_images import spread_batch
from mmkd.features import outputs_when_run
from mmkd.report.figures.dynamics import draw_dynamics
from mmkd.report.figures.tsne import Points, draw_tsne, nearest_alike
from mmkd.report.numbers import spread
from mmkd.runs.mmengine.classification import ClassificationRecipe
from mmkd.runs.mmengine.recipes import MMRecipe
from mmkd.runs.penultimate import penultimate_features
from mmkd.runs.running import Job, run_all
from mmkd.work_dirs import read_work_dir
from mmkd.work_dirs.run_result import RunResult

STUDENT = "classification/cifar10_10k/resnet8_cifar10-10k.py"
TEACHER_DEPTH, TEACHER_EPOCHS = 14, 25
# Looked at after every epoch, as many as M&M's Table 7; and for t-SNE.
IMAGES, SHOWN = 256, 1000
MOVED = 8
VIT = dict(
    type="VisionTransformer",
    arch=dict(embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=192),
    img_size=32,
    patch_size=4,
    with_cls_token=False,
    out_type="avg_featmap",
)
VIT_WIDTH = 96


def epochs_of(figure: Figure, args: argparse.Namespace) -> int:
    """Of a figure's students."""
    return round(figure.longer * args.epochs)


def teacher_config(args: argparse.Namespace) -> Config:
    """Of the student's last width, so that it can teach without a projector."""
    config = read_config(STUDENT, 0, args.data, args.runs / "teacher")
    config.model.backbone.depth = TEACHER_DEPTH
    set_epochs(config, TEACHER_EPOCHS)
    return config


def classifier_config(
    figure: Figure, terms: Mapping[str, Any], seed: int, folder: Path, args: argparse.Namespace
) -> Config:
    """A ResNet-8, or a vision transformer."""
    config = read_config(STUDENT, seed, args.data, folder)
    set_epochs(config, epochs_of(figure, args))
    hook: dict[str, Any] = dict(images=IMAGES)
    if figure.student == "vit":
        config.model.backbone = copy.deepcopy(VIT)
        config.model.neck = None
        config.model.head.in_channels = VIT_WIDTH
        config.optim_wrapper.optimizer = dict(type="AdamW", lr=1e-3, weight_decay=0.05)
        hook["blocks"] = [BLOCK]
    checkpoint = str(args.runs / f"teacher/epoch_{TEACHER_EPOCHS}.pth")
    config.custom_hooks = []
    if "kd" in terms:
        config.model.head.loss.loss_weight = 1 - terms["kd"]["weight"]
        alignment = dict(type="mmkd.ClassifierAlignmentHook", checkpoint=checkpoint)
        config.custom_hooks.append(alignment)
    config.custom_hooks += [
        dict(
            type="mmkd.DistillHook",
            teacher=dict(config=str(args.runs / "teacher/teacher.py"), checkpoint=checkpoint),
            terms=copy.deepcopy(dict(terms)),
            probe_size=32,
        ),
        dict(type="mmkd.DynamicsHook", interval=1, **hook),
    ]
    return config


def detector_config(
    terms: Mapping[str, Any], seed: int, folder: Path, args: argparse.Namespace
) -> Config:
    """That of `mmkd demo`."""
    config = digits_config("distilled", seed, args.runs / "digits", args.runs / "detectors")
    config.work_dir = str(folder)
    [hook] = config.custom_hooks
    hook.teacher.checkpoint = detector_teacher(args).checkpoint
    hook.terms = copy.deepcopy(dict(terms))
    config.custom_hooks.append(dict(type="mmkd.DynamicsHook", interval=1))
    return config


def detector_teacher(args: argparse.Namespace) -> RunResult:
    """Trained once."""
    make_digits(args.runs / "digits", num_train=NUM_TRAIN, num_val=NUM_VAL)
    config = digits_config("teacher", 0, args.runs / "digits", args.runs / "detectors")
    [result] = run_all([Job("teacher", MMRecipe(config), "detector: teacher")])
    return result


def classifier_teacher(args: argparse.Namespace) -> RunResult:
    """Trained once; its config lies beside it."""
    config = teacher_config(args)
    [result] = run_all([Job("teacher", ClassificationRecipe(config), "teacher")])
    Config(dict(model=config.model, default_scope="mmpretrain")).dump(
        args.runs / "teacher/teacher.py"
    )
    return result


def job(key: str, setting: str, seed: int, args: argparse.Namespace) -> Job:
    """One student's training."""
    figure = FIGURES[key]
    folder = args.runs / key / folder_name(setting, seed)
    terms = figure.settings[setting]
    name = f"{key}: {setting}"
    if figure.student == "detector":
        return Job(setting, MMRecipe(detector_config(terms, seed, folder, args)), name)
    config = classifier_config(figure, terms, seed, folder, args)
    return Job(setting, ClassificationRecipe(config), name)


def rows_of(figure: Figure, folder: Path) -> list[DynamicsRow]:
    """What a run recorded of the figure's term, of training images."""
    rows = read_dynamics(folder / DYNAMICS_FILE)
    wanted = (*figure.measures, "singular_")
    return [
        row
        for row in rows
        if (row.term, row.images) == (figure.term, "train") and row.measure.startswith(wanted)
    ]


def recorded(rows: Sequence[DynamicsRow]) -> Recorded:
    """By measure, from the first epoch to the last."""
    found: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda each: each.step):
        found.setdefault(row.measure, []).append(row.value)
    return found


def section(
    key: str,
    results: Mapping[tuple[str, int], RunResult],
    after: Mapping[tuple[str, int], Recorded],
    out: Path,
) -> list[str]:
    """A figure: ours, the values at the end, and what holds.

    Args:
        key: Of the figure.
        results: By setting and seed.
        after: What was measured of each when it had ended.
        out: Folder of all pictures.
    """
    figure = FIGURES[key]
    seeds = sorted({seed for _, seed in results})
    rows = {
        (setting, seed): rows_of(figure, folder_of(results[setting, seed]))
        for setting in figure.settings
        for seed in seeds
    }
    draw_dynamics({s: [rows[s, seed] for seed in seeds] for s in figure.settings}, out / key)
    by_run = {of: {**recorded(found), **after[of]} for of, found in rows.items()}
    metric = "mAP" if figure.student == "detector" else "top1"
    heads = [name for m in figure.measures for name in (f"{m}, first", f"{m}, last")]
    ends = list(next(iter(after.values())))
    heads += ends
    lines = [
        f"## {figure.title}",
        "",
        f"Published: {figure.published}",
        "",
        f"| setting | {metric}, % | {' | '.join(heads)} |",
        f"|{'---|' * (len(heads) + 2)}",
    ]
    for setting in figure.settings:
        scores = spread([results[setting, seed].scores[metric] for seed in seeds])
        cells = [
            _digits([by_run[setting, seed][measure][place] for seed in seeds])
            for measure in figure.measures
            for place in (0, -1)
        ]
        cells += [_digits([after[setting, seed][end][-1] for seed in seeds]) for end in ends]
        lines.append(f"| {setting} | {scores} | {' | '.join(cells)} |")
    held = {
        trend.text: [trend.holds({s: by_run[s, seed] for s in figure.settings}) for seed in seeds]
        for trend in figure.trends
    }
    lines += ["", *trend_table(held)]
    names = ["singular_values"] if key.endswith("-3") else []
    names += list(figure.measures)
    if figure.reading:
        lines += ["", figure.reading]
    return [*lines, "", *(f"![{n}]({out.name}/{key}/{n}.png)" for n in names), ""]


def _digits(values: Sequence[float]) -> str:
    return f"{fmean(values):.3g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def features_of(folder: Path) -> Points:
    """Before the last layer, of test photographs."""
    found = penultimate_features(read_work_dir(folder), SHOWN)
    return Points(found.features.numpy(), found.labels.numpy(), found.classes)


def last_distance(run: RunResult, term: str) -> float:
    """To the teacher, as the run has logged it last."""
    curve = read_work_dir(folder_of(run)).curve(f"distill_{term}")
    assert curve is not None
    return curve.points[-1][1]


def folder_of(run: RunResult) -> Path:
    """Where it has recorded."""
    return Path(run.checkpoint).parent


def classifiers(
    results: Mapping[tuple[str, int], RunResult], epochs: int, args: argparse.Namespace, out: Path
) -> dict[tuple[str, int], Recorded]:
    """Dua's Figures 2, drawn of the first seed, and 6."""
    points = {of: features_of(folder_of(run)) for of, run in results.items()}
    first = min(seed for _, seed in results)
    drawn = {name: each for (name, seed), each in points.items() if seed == first}
    draw_tsne({**drawn, "teacher": features_of(args.runs / "teacher")}, out)
    begin = round(WARM_UP * epochs)
    theirs = classifier_of(args.runs / f"teacher/epoch_{TEACHER_EPOCHS}.pth")
    ours = {of: classifier_of(Path(run.checkpoint)) for of, run in results.items()}
    return {
        of: dict(
            # Of mu^2 = |W_t|^2 + |W_s|^2 - 2 |W_t| |W_s| cos.
            norm=[float(ours[of].norm())],
            cosine=[float(torch.cosine_similarity(ours[of], theirs, dim=0))],
            correlation=[Alignment.of(run, begin).correlation],
            nearest_alike=[nearest_alike(points[of].features, points[of].labels)],
        )
        for of, run in results.items()
    }


def departure(folder: Path, checkpoint: Path, module: str) -> float:
    """Of a run's network from equivariance to a translation by :data:`MOVED` pixels, which are
    whole cells of teacher and student alike."""
    config = Config.fromfile(next(folder.glob("resnet8*.py")))
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(config.model)
        model.load_state_dict(read_weights(checkpoint).weights)
        loader = Runner.build_dataloader({**config.train_dataloader, "num_workers": 0})
    images = spread_batch(loader, model.data_preprocessor, IMAGES)["inputs"]
    outputs = []
    for inputs in (images, images.roll((MOVED, MOVED), dims=(2, 3))):
        run = partial(model.backbone, inputs)
        [output] = outputs_when_run(model, [module], run).values()
        output = output[-1] if isinstance(output, tuple) else output
        side = round((output[0, 0].numel() if output.ndim == 4 else output.shape[1]) ** 0.5)
        grid = output.movedim(1, -1) if output.ndim == 4 else output.unflatten(1, (side, side))
        outputs.append(grid)
    cells = MOVED * side // images.shape[2]
    return translational_equivariance(*outputs, (cells, cells), relative=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--figures", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=15, help="of the classifiers; of Dua's, 24")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("work_dirs/dynamics_study"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/dynamics_study.md"))
    args = parser.parse_args()
    args.data, args.runs = args.data.resolve(), args.runs.resolve()
    teacher = classifier_teacher(args)
    # All settings of one seed before the next, so that a study that is stopped is balanced.
    keys = [(s, f, name) for s in args.seeds for f in args.figures for name in FIGURES[f].settings]
    results = run_all([job(f, name, s, args) for s, f, name in keys], args.workers)
    found = dict(zip(keys, results, strict=True))
    pictures = args.out.with_suffix("")
    lines = [
        "# What goes on inside a distillation: the papers' figures, repeated",
        "",
        f"The ResNet-14 that teaches: {top1([teacher])[0]:.1f} %. {args.epochs} epochs, seeds "
        f"{', '.join(map(str, args.seeds))}. A trend agrees where it holds in every seed, "
        "disagrees where in none; one seed tells neither.",
        "",
    ]
    for key in args.figures:
        own = {(name, seed): r for (seed, f, name), r in found.items() if f == key}
        figure = FIGURES[key]
        after: dict[tuple[str, int], Recorded] = {of: {} for of in own}
        if figure.same_distance:
            after = {
                of: dict(distance=[last_distance(run, figure.term)]) for of, run in own.items()
            }
        if key == "003-1":
            after = classifiers(own, epochs_of(figure, args), args, pictures / key)
        if figure.student == "vit":
            after = {
                of: {f"at {MOVED} pixels": [departure(folder_of(run), Path(run.checkpoint), BLOCK)]}
                for of, run in own.items()
            }
        lines += section(key, own, after, pictures)
        if figure.student == "vit":
            file = args.runs / f"teacher/epoch_{TEACHER_EPOCHS}.pth"
            theirs = departure(file.parent, file, "backbone")
            lines += [f"The CNN that teaches departs by {theirs:.3g} at {MOVED} pixels.", ""]
        if key == "003-1":
            lines += [f"![t-SNE]({pictures.name}/{key}/tsne.png)", ""]
    report(lines, args.out)


if __name__ == "__main__":
    main()
