"""What the method study compares: how each method trains the small student, for any teacher."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from cifar_settings import MAIN, STUDENT_CHANNELS, Setting
from cifar_study import TEACHER, student_config
from mmengine.config import Config
from published_methods import (
    HINT,
    IN_TWO_TRAININGS,
    KD_AFTER_HINT,
    PublishedMethod,
    published_methods,
)
from strong_teacher import STRONG, Teacher

from mmkd.configs import config_file

__all__ = [
    "ALONE",
    "CURRICULA",
    "ORDINARY",
    "PAIRS",
    "assistant_itself",
    "config_of",
    "curricula",
    "fitnet_stages",
    "hint_epochs",
    "settings",
    "write_network",
]

ORDINARY = Teacher("ordinary", TEACHER, 128)
# By the pair's name in method_cost.py.
PAIRS: Mapping[str, Teacher] = {"cifar10_10k": ORDINARY, "cifar10_10k_strong": STRONG}
CURRICULA = ("assistant", "densely guided", "born again", "fitnet, hint first")
# Students who learn from no teacher of the study's, and are the same beside either.
ALONE = ("plain", "ema", "uskd", "born again")
IMAGES, BATCH = 10_000, 64
ASSISTANT_DEPTH = 14
# The published schedule, and its parts that are spent on first stages.
EPOCHS = 240
HINT_STAGE = 30 / EPOCHS
FIRST_STAGES = dict(paraphrase=30 / EPOCHS, pretext=60 / EPOCHS, initial=20 / EPOCHS)
_KD = MAIN["KD, T = 4"]


def settings(epochs: int) -> dict[str, Setting]:
    """The methods of one training by name, the plain student first."""
    methods = {**MAIN, **_published(epochs)}
    # M&M's ImageNet program has weight 2 where KL stands beside LogSum; cifar_study.py has 1.
    both = methods["LogSum + KL"]
    feature = dict(both.terms["feature"], weight=2.0)
    methods["LogSum + KL"] = replace(both, terms={**both.terms, "feature": feature})
    return {name: each for name, each in methods.items() if name not in IN_TWO_TRAININGS}


def fitnet_stages(epochs: int) -> tuple[Setting, Setting]:
    """The training that learns the hint, and the one that goes on from it."""
    found = _published(epochs)
    return found[HINT], found[KD_AFTER_HINT]


def hint_epochs(epochs: int) -> int:
    """Of the first of them, beside the second's."""
    return max(1, round(HINT_STAGE * epochs))


def _published(epochs: int) -> dict[str, Setting]:
    """The methods of configs/classification/methods, on a schedule of so many epochs."""
    return {
        name: Setting(
            {key: _scaled(term, epochs) for key, term in deepcopy(method.terms).items()},
            model=_model(method),
            teacher=method.teacher,
            changes=method.changes,
        )
        for name, method in published_methods().items()
    }


def _model(method: PublishedMethod) -> dict[str, Any]:
    model: dict[str, Any] = dict(head=dict(method.head)) if method.head else {}
    if method.preprocessor is not None:
        model["data_preprocessor"] = dict(type=method.preprocessor)
    return model


def _scaled(term: dict[str, Any], epochs: int) -> dict[str, Any]:
    """What counts images, channels and epochs, for this set, student and schedule."""
    schedule = term.get("schedule", {})
    for key in schedule.keys() & {"ramp", "end", "decay"}:
        schedule[key] *= epochs / EPOCHS
    epoch = IMAGES // BATCH  # Its last batch is left out where it is not full.
    for key, part in FIRST_STAGES.items():
        if key in term:
            term[key] = round(part * epochs * epoch)
    if "every" in term:
        term["every"] = epoch
    if "num_images" in term:
        term.update(num_images=IMAGES, negatives=4096)
    if "inner" in term.get("loss", {}):
        term["loss"]["inner"] = min(512, STUDENT_CHANNELS)  # ReviewKD's rule
    return term


def assistant_itself() -> Setting:
    """TAKD's, with the student's width and the depth of the ordinary teacher."""
    return replace(_KD, model=dict(_KD.model, backbone=dict(depth=ASSISTANT_DEPTH)))


def curricula(
    first: Mapping[str, Any],
    assistant: Mapping[str, Any],
    peer: Mapping[str, Any],
    hinted: Setting,
) -> dict[str, Setting]:
    """Students who need another training before their own.

    DGKD's student has the sum of what it would have with either teacher, and goes without one in a
    quarter of the iterations.

    Args:
        first: The study's teacher, as the hook's setting.
        assistant: Its student.
        peer: The plain student.
        hinted: FitNet's second stage, with the weights that it begins from.
    """
    densely = {
        source: dict(_KD.terms["kd"], source=source, schedule=dict(drop=0.25))
        for source in ("teacher", "assistant")
    }
    both = dict(head=dict(loss=dict(loss_weight=0.2)))
    return {
        "assistant": replace(_KD, teacher=assistant),
        "densely guided": Setting(densely, None, both, dict(teacher=first, assistant=assistant)),
        "born again": replace(_KD, teacher=peer),
        "fitnet, hint first": hinted,
    }


def config_of(setting: Setting, seed: int, teacher: Teacher, data: Path, folder: Path) -> Config:
    """Of a student's training, whose epochs are still to be set."""
    if "teacher_channels" in setting.model.get("head", {}):
        head = {**setting.model["head"], "teacher_channels": teacher.width}
        setting = replace(setting, model={**setting.model, "head": head})
    config = student_config(setting, seed, data, folder, teacher.checkpoint)
    for hook in config.custom_hooks if setting.teacher is None else ():
        hook.teacher.config = config_file(teacher.config)
        if "afd" in hook.terms:
            hook.terms.afd.teacher = _blocks(hook.teacher.config)
    return config


def _blocks(config: str) -> list[str]:
    """Of a CIFAR ResNet, by their paths."""
    count = (Config.fromfile(config).model.backbone.depth - 2) // 6
    return [f"backbone.stages.{stage}.{block}" for stage in range(3) for block in range(count)]


def write_network(config: Config, file: Path) -> str:
    """Writes the network that a config trains as a teacher's config."""
    Config(dict(model=config.model, default_scope="mmpretrain")).dump(file)
    return str(file)
