"""What dynamics_study.py compares: the papers' figures, each as settings, measures and trends.

Miles & Mikolajczyk (M&M), Chen et al. and Dua are in the README.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alignment_study import CLAIMS, KD_WEIGHT, PLAIN, TEMPERATURES

__all__ = ["FIGURES", "Figure", "Recorded", "Trend"]

# By measure, its values from the first record to the last, of the figure's term.
Recorded = Mapping[str, list[float]]


@dataclass(frozen=True)
class Trend:
    """A published finding.

    Args:
        text: What it says of the measures here.
        holds: Of one seed's recordings, by setting.
    """

    text: str
    holds: Callable[[Mapping[str, Recorded]], bool]


@dataclass(frozen=True)
class Figure:
    """A published figure.

    Args:
        title: Where it stands.
        published: What it shows, in words.
        term: Whose measures are drawn; of a ViT the block.
        measures: Which.
        settings: By name, the terms.
        trends: What is checked.
        student: Which one: ``'cnn'``, ``'vit'`` or ``'detector'``.
        longer: Factor of the study's epochs.
        same_distance: Whether all settings have one normalizer and loss, so that their distances
            at the end can be compared.
        reading: Why it may be as it is, where a trend does not hold; of what the table shows.
    """

    title: str
    published: str
    term: str
    measures: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]
    trends: tuple[Trend, ...]
    student: str = "cnn"
    longer: float = 1.0
    same_distance: bool = False
    reading: str = ""


def _last(runs: Mapping[str, Recorded], setting: str, measure: str) -> float:
    return runs[setting][measure][-1]


def higher(measure: str, better: str, worse: str) -> Trend:
    """At the end."""
    return Trend(
        f"{measure}: {better} above {worse} at the end",
        lambda runs: _last(runs, better, measure) > _last(runs, worse, measure),
    )


def falls(measure: str, setting: str) -> Trend:
    """From the first record to the last."""
    return Trend(
        f"{measure} of {setting} falls",
        lambda runs: runs[setting][measure][-1] < runs[setting][measure][0],
    )


def _feature(**parts: Any) -> dict[str, Any]:
    """Pooled; of tokens, as the authors' DeiT program does, the mean."""
    return dict(feature=dict(view="global", **parts))


def _mlp(layers: int) -> dict[str, Any]:
    return dict(type="mmkd.MLPProjector", hidden_channels=None, num_layers=layers)


PROJECTORS = {
    "linear": dict(type="mmkd.LinearProjector"),
    "MLP, 2 layers": _mlp(2),
    "MLP, 3 layers": _mlp(3),
}
# Of the gradient at the feature, so that normalisers and projectors differ in nothing else.
PULL = dict(loss=dict(type="mmkd.MSELoss"), weight=dict(share=0.5))
NONE, BATCH = dict(type="mmkd.IdentityNormalizer"), dict(type="mmkd.BatchNormalizer")
NORMALIZERS = {"none": NONE, "L2": dict(type="mmkd.L2Normalizer"), "batch": BATCH}


def _decorrelation(
    settings: Mapping[str, Mapping[str, Any]], student: str, name: str, reading: str = ""
) -> Figure:
    return Figure(
        f"{name}: what enters a projector and what leaves it",
        "All projectors decorrelate the two while they train, larger ones more.",
        "feature",
        ("passes",),
        settings,
        (
            *(falls("passes", setting) for setting in PROJECTORS),
            higher("passes", "linear", "MLP, 2 layers"),
            higher("passes", "MLP, 2 layers", "MLP, 3 layers"),
        ),
        student,
        same_distance=True,
        reading=reading,
    )


def _singular(
    settings: Mapping[str, Mapping[str, Any]], student: str, name: str, reading: str
) -> Figure:
    return Figure(
        f"{name}: singular values of the projector",
        "Batch normalisation shrinks far fewer singular values towards zero than L2, and either "
        "fewer than none (read with Table 1, whose order is that of the accuracies).",
        "feature",
        ("effective_rank", "condition_number"),
        settings,
        (
            higher("effective_rank", "batch", "L2"),
            higher("effective_rank", "batch", "none"),
            higher("condition_number", "L2", "batch"),
            higher("condition_number", "none", "batch"),
        ),
        student,
        reading=reading,
    )


def _direction(projector: Mapping[str, Any]) -> dict[str, Any]:
    loss = dict(type="mmkd.DirectionAlignmentLoss")
    return _feature(projector=projector, normalizer=NONE, loss=loss, weight=25.0)


def _kd(temperature: float, weight: float = KD_WEIGHT) -> dict[str, Any]:
    loss = dict(type="mmkd.KDLoss", temperature=temperature)
    return dict(kd=dict(student="head.fc", teacher="head.fc", loss=loss, weight=weight))


BLOCK = "backbone.layers.3"
CLOSER = Trend(
    "three projectors: closer to the teacher's than one, at the end",
    lambda runs: _to_teacher(runs, "three") < _to_teacher(runs, "one"),
)

FIGURES = {
    "001-2": _decorrelation(
        {n: _feature(projector=each, normalizer=BATCH, **PULL) for n, each in PROJECTORS.items()},
        "cnn",
        "M&M, Figure 2",
        "The projector of three layers ends farther from the teacher than the others, with the "
        "least accurate student: in so few epochs the deepest has learned least, also to "
        "decorrelate.",
    ),
    "001-3": _singular(
        {n: _feature(normalizer=each, **PULL) for n, each in NORMALIZERS.items()},
        "cnn",
        "M&M, Figure 3",
        "The condition number is decided by the smallest of 64 singular values alone, which "
        "differs more from seed to seed than from normaliser to normaliser. The effective rank, "
        "to which all of them count, holds.",
    ),
    "002-2": Figure(
        "Chen et al., Figure 2: cosine between classes",
        "Without a projector the student's is higher than with one; with several it is closer to "
        "the teacher's than with one.",
        "feature",
        ("between_classes", "teacher_between_classes"),
        {
            "none": _direction(dict(type="mmkd.IdentityProjector")),
            "one": _direction(dict(type="mmkd.ProjectorEnsemble", num_projectors=1)),
            "three": _direction(dict(type="mmkd.ProjectorEnsemble", num_projectors=3)),
        },
        (
            higher("between_classes", "none", "one"),
            CLOSER,
        ),
    ),
    "003-1": Figure(
        "Dua, Figures 1, 2 and 6: distance of the classifiers, and the classes, by temperature",
        "With distillation the distance falls quickly after the warm-up and settles. Its "
        "correlation with the objective is strongly negative without distillation, rises to its "
        "peak at T = 4, about 0.97, and is strongly negative again at T = 10. Features of "
        "different classes are farthest apart at about T = 4.",
        "kd",
        ("classifier_distance", "agreement"),
        {PLAIN: _kd(1.0, weight=0.0), **{f"T = {t:g}": _kd(t) for t in TEMPERATURES}},
        (
            *(
                Trend(
                    f"T = {t:g}: the distance falls in the second half",
                    lambda runs, name=f"T = {t:g}": _falls_late(runs[name]),
                )
                for t in TEMPERATURES
            ),
            *(
                Trend(
                    f"correlation: {claim.text}",
                    lambda runs, holds=claim.holds: holds(
                        {name: each["correlation"][-1] for name, each in runs.items()}
                    ),
                )
                for claim in CLAIMS
            ),
            Trend(
                "at T = 4 the nearest feature is of the same class more often than without "
                "distillation and at T = 10",
                lambda runs: (
                    _last(runs, "T = 4", "nearest_alike")
                    > max(_last(runs, n, "nearest_alike") for n in (PLAIN, "T = 10"))
                ),
            ),
        ),
        longer=1.6,
        reading="Student and teacher number their channels apart: the cosine of their classifiers "
        "is near 0 at every temperature. So the distance, whose square is |W_t|² + |W_s|² - "
        "2 |W_t| |W_s| cos, tells how large the student's classifier is and not how it lies to the "
        "teacher's. Here it grows while the objective falls, with distillation and without, hence "
        "r below 0; only at T = 2 has it settled, and r is of either sign. An r near 1 needs one "
        "that shrinks after the warm-up.",
    ),
    "001-7": Figure(
        "M&M, Table 7: equivariance of a transformer's blocks to translation",
        "DeiT-S departs by 1.52, Co-advise's (tokens taught by CNNs) by 0.13, M&M's by 0.04.",
        BLOCK,
        ("equivariance",),
        {
            "plain": _feature(student=BLOCK, weight=0.0),
            "taught by its labels": dict(
                hard=dict(
                    student="head.fc",
                    teacher="head.fc",
                    loss=dict(type="mmkd.HardDistillationLoss"),
                    weight=1.0,
                )
            ),
            "LogSum": _feature(student=BLOCK, weight=1.0),
        },
        (
            higher("equivariance", "plain", "LogSum"),
            higher("equivariance", "plain", "taught by its labels"),
            higher("equivariance", "taught by its labels", "LogSum"),
        ),
        "vit",
        reading="From the image on, every student departs the farther the longer it learns, and "
        "most where it learns most from the CNN, which departs farther than all of them: its "
        "padding tells where the border is, and a roll moves the border into the image. The paper "
        "measures blocks, and does not say from where on; of a block alone the measure is 0.",
    ),
    "detector-2": _decorrelation(
        {
            n: dict(feature=dict(projector=each, normalizer=BATCH, **PULL))
            for n, each in PROJECTORS.items()
        },
        "detector",
        "As M&M's Figure 2, of a detector's backbone",
    ),
    "detector-3": _singular(
        {n: dict(feature=dict(normalizer=each, **PULL)) for n, each in NORMALIZERS.items()},
        "detector",
        "As M&M's Figure 3, of a detector's backbone",
        "No projector shrinks here: in the demo's few epochs the rank stays where it is after the "
        "first of them, whichever the normaliser.",
    ),
    "detector-4": Figure(
        "As Chen et al.'s Figure 2, of a detector's backbone: cosine between objects of classes",
        "With several projectors the student's is closer to the teacher's than with one.",
        "feature",
        ("between_classes", "teacher_between_classes"),
        {
            name: dict(
                feature=dict(
                    projector=dict(type="mmkd.ProjectorEnsemble", num_projectors=count),
                    normalizer=NONE,
                    loss=dict(type="mmkd.DirectionAlignmentLoss"),
                    weight=dict(share=0.5),
                )
            )
            for name, count in (("one", 1), ("three", 3))
        },
        (CLOSER,),
        "detector",
        reading="In the demo's few epochs the student's objects stay far more alike than the "
        "teacher's, with one projector and with three.",
    ),
}


def _to_teacher(runs: Mapping[str, Recorded], setting: str) -> float:
    own = _last(runs, setting, "between_classes")
    return abs(own - _last(runs, setting, "teacher_between_classes"))


def _falls_late(recorded: Recorded) -> bool:
    distance = recorded["classifier_distance"]
    return distance[-1] < distance[len(distance) // 2]
