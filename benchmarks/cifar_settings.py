"""What the CIFAR-10 study compares: the methods, the ablations, and the papers' findings.

A setting is what it changes in ``resnet8_resnet14-logsum_cifar10-10k.py``: the hook's settings, and
the student's model. LogSum's recipe comes from Miles & Mikolajczyk (M&M), the projector ensemble
from Chen et al. (both in the README).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ABLATIONS", "MAIN", "SETTINGS", "TABLES", "Claim", "Setting", "Table"]

# M&M's ImageNet program weighs LogSum with 2, their DeiT program with 1.
LOGSUM_WEIGHT = 1.0
# As in configs/classification/imagenet: at the start of a training its gradient is then of LogSum's
# order, so that the comparison is one of shapes.
SQUARED_WEIGHT = 2.0
STUDENT_CHANNELS, TEACHER_CHANNELS, NUM_CLASSES = 64, 128, 10

IDENTITY = dict(
    projector=dict(type="mmkd.IdentityProjector"), normalizer=dict(type="mmkd.IdentityNormalizer")
)
LOGITS = dict(student="head.fc", teacher="head.fc")


@dataclass(frozen=True)
class Setting:
    """One way to train the student.

    Args:
        terms: Of the hook; empty for the plain student.
        inherit: Of the hook.
        model: Changes to the student's model.
        teacher: In the place of the trained one, for students who teach themselves.
        changes: To the rest of the config.
    """

    terms: Mapping[str, Any] = field(default_factory=dict)
    inherit: Mapping[str, str] | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    teacher: Mapping[str, Any] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


def logsum(alpha: float = 4.0, projector: str = "mmkd.LinearProjector") -> dict[str, Any]:
    """M&M's recipe on the pooled last map."""
    return dict(
        view="global",
        projector=dict(type=projector),
        loss=dict(type="mmkd.LogSumLoss", alpha=alpha),
        weight=LOGSUM_WEIGHT,
    )


def squared(normalizer: str, loss: str = "MSELoss", **settings: Any) -> Setting:
    """The same with the squared distance: M&M's Tables 1 and 3 (without LogSum)."""
    term = dict(
        view="global",
        normalizer=dict(type=f"mmkd.{normalizer}", **settings),
        loss=dict(type=f"mmkd.{loss}"),
        weight=SQUARED_WEIGHT,
    )
    return Setting(dict(feature=term))


def direction(projector: Mapping[str, Any]) -> Setting:
    """Chen et al.'s loss and weight on the pooled last map."""
    term = dict(
        view="global",
        projector=projector,
        normalizer=dict(type="mmkd.IdentityNormalizer"),
        loss=dict(type="mmkd.DirectionAlignmentLoss"),
        weight=25.0,
    )
    return Setting(dict(feature=term))


def ensemble(q: int) -> Setting:
    """The mean of q linear maps with ReLU."""
    return direction(dict(type="mmkd.ProjectorEnsemble", num_projectors=q))


def mlp(layers: int) -> Setting:
    """A cascade of linear maps with ReLU; one layer is ``ensemble(1)``."""
    return direction(
        dict(
            type="mmkd.MLPProjector", hidden_channels=None, num_layers=layers, activate_output=True
        )
    )


def kl(temperature: float, weight: float) -> dict[str, Any]:
    """Distillation of the logits."""
    return dict(**LOGITS, loss=dict(type="mmkd.KDLoss", temperature=temperature), weight=weight)


def connected(task_weight: float, **terms: Any) -> Setting:
    """Connector and the teacher's frozen classifier become the student's head."""
    head = dict(
        _delete_=True,
        type="mmkd.ConnectorClsHead",
        num_classes=NUM_CLASSES,
        in_channels=STUDENT_CHANNELS,
        teacher_channels=TEACHER_CHANNELS,
        loss=dict(type="CrossEntropyLoss", loss_weight=task_weight),
    )
    map_ = dict(
        student="head.connector", teacher="backbone", **IDENTITY, loss=dict(type="mmkd.MSELoss")
    )
    return Setting(
        dict(map=map_, **terms), inherit={"head.fc": "head.fc"}, model=dict(neck=None, head=head)
    )


SRRL = dict(
    view="global",
    projector=dict(type="mmkd.ConvConnector", layout="1x1", initial="he"),
    normalizer=dict(type="mmkd.IdentityNormalizer"),
    loss=dict(type="mmkd.SoftmaxRegressionLoss"),
    teacher_classifier="head.fc",
)

MAIN = {
    "plain": Setting(),
    # 0.1 cross-entropy + 0.9 KD, as in the program on which the papers' CIFAR tables stand.
    "KD, T = 4": Setting(dict(kd=kl(4.0, 0.9)), model=dict(head=dict(loss=dict(loss_weight=0.1)))),
    "LogSum": Setting(dict(feature=logsum())),
    "LogSum, MLP projector": Setting(dict(feature=logsum(projector="mmkd.MLPProjector"))),
    "LogSum + KL": Setting(dict(feature=logsum(), kl=kl(1.0, 1.0))),
    "ensemble, q = 1": ensemble(1),
    "ensemble, q = 3": ensemble(3),
    "SRRL": Setting(dict(srrl=SRRL)),
    "SimKD": connected(0.0),
    "IJCKD": connected(1.0, logits=dict(**LOGITS, **IDENTITY, loss=dict(type="mmkd.MSELoss"))),
}
ABLATIONS = {
    "squared, no normaliser": squared("IdentityNormalizer"),
    # Of unit vectors, half the squared distance is one minus the cosine.
    "squared, cosine": squared("L2Normalizer", "L2Loss"),
    "squared, group": squared("GroupNormalizer", num_groups=16),
    "squared, batch": squared("BatchNormalizer"),
    **{f"LogSum, α = {a:g}": Setting(dict(feature=logsum(a))) for a in (1, 1.5, 2, 2.5, 3, 5)},
    **{f"ensemble, q = {q}": ensemble(q) for q in (2, 4)},
    **{f"MLP, {k} layers": mlp(k) for k in (2, 3, 4)},
}
SETTINGS = MAIN | ABLATIONS


@dataclass(frozen=True)
class Claim:
    """That one setting scores higher than another."""

    better: str
    worse: str


@dataclass(frozen=True)
class Table:
    """An ablation of a paper: its settings in order, what it found, and the claims that say so."""

    title: str
    names: Mapping[str, str]
    published: str
    claims: tuple[Claim, ...]


def _over(better: str, *worse: str) -> tuple[Claim, ...]:
    return tuple(Claim(better, each) for each in worse)


TABLES = (
    Table(
        "Normaliser (M&M, Table 1)",
        {
            "no distillation": "plain",
            "none": "squared, no normaliser",
            "cosine": "squared, cosine",
            "group": "squared, group",
            "batch": "squared, batch",
        },
        "RegNet-Y -> MobileNet v2: 50.89 without distillation, cosine 52.91, group 55.63, batch "
        "56.09; batch is best in all three pairs, then group, then cosine.",
        _over("squared, batch", "plain", "squared, cosine", "squared, group")
        + _over("squared, group", "squared, cosine"),
    ),
    Table(
        "Exponent of LogSum (M&M, Table 2)",
        {
            **{f"α = {a:g}": f"LogSum, α = {a:g}" for a in (1, 1.5, 2, 2.5, 3)},
            "α = 4": "LogSum",
            "α = 5": "LogSum, α = 5",
        },
        "ResNet50 -> ResNet18: 61.74, 62.18, 62.23, 62.84, 63.10, 63.32, 63.40 for α = 1 to 5; "
        "ConvNext -> EfficientNet-b0 has its best at 4 (68.51; 67.72 at 3, 67.69 at 5).",
        _over("LogSum", *(f"LogSum, α = {a:g}" for a in (1, 1.5, 2, 2.5, 3))),
    ),
    Table(
        "Soft maximum (M&M, Table 3)",
        {"without LogSum": "squared, batch", "with LogSum": "LogSum"},
        "With LogSum better in all three pairs: 59.28 to 59.80, 67.95 to 68.51, 70.03 to 71.29.",
        _over("LogSum", "squared, batch"),
    ),
    Table(
        "Number of projectors (Chen et al., Figure 3)",
        {"no distillation": "plain", **{f"q = {q}": f"ensemble, q = {q}" for q in (1, 2, 3, 4)}},
        "Every distilled student is better than the plain one, and several projectors are better "
        "than one (read from the figure's discussion; it gives no numbers).",
        _over("ensemble, q = 1", "plain")
        + tuple(Claim(f"ensemble, q = {q}", "ensemble, q = 1") for q in (2, 3, 4)),
    ),
    Table(
        "Depth of the projector (Chen et al., Figure 4)",
        {"1 layer": "ensemble, q = 1", **{f"{k} layers": f"MLP, {k} layers" for k in (2, 3, 4)}},
        "More layers do not improve the student and tend to make the projector less effective.",
        _over("ensemble, q = 1", *(f"MLP, {k} layers" for k in (2, 3, 4))),
    ),
)
