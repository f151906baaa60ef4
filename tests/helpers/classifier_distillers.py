"""Each distiller with modules, memories or stages of its own: a term, the student that it serves,
and a training whose stages all come in its first half."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from helpers.classifier_toy import classifier, classifier_config, distill, linear_head

# 16 images in batches of 4.
ITERATIONS = 4
_TAPS = dict(student=["backbone", "head.fc"], teacher=["backbone", "head.fc"])
TERMS: dict[str, dict[str, Any]] = {
    "afd": dict(
        type="mmkd.AFDDistiller",
        student=["backbone.conv", "backbone"],
        teacher=["backbone.conv", "backbone"],
        width=5,
    ),
    "cid": dict(
        type="mmkd.CIDDistiller", student_classifier="head", initial=ITERATIONS, every=3, **_TAPS
    ),
    "crd": dict(type="mmkd.CRDDistiller", num_images=16, negatives=5, width=4),
    "ft": dict(type="mmkd.FTDistiller", paraphrase=ITERATIONS + 1),
    "sskd": dict(type="mmkd.SSKDDistiller", pretext=ITERATIONS + 1, **_TAPS),
    "uskd": dict(type="mmkd.USKDDistiller", **_TAPS),
}


def distiller_config(
    folder: Path, teacher: dict, name: str, term: dict | None = None, **overrides: Any
) -> Config:
    """A run of three epochs with a distiller's term.

    Args:
        folder: For its files.
        teacher: As ``write_classifier`` gives it; USKD has none.
        name: Of ``TERMS``.
        term: Changes to it.
        overrides: Of the config.
    """
    teacher = dict(student=True) if name == "uskd" else teacher
    terms = {name: {**deepcopy(TERMS[name]), **(term or {})}}
    config = classifier_config(folder, student_of(name), **distill(teacher, terms), **overrides)
    config.train_cfg.max_epochs = 3
    return config


def student_of(name: str) -> dict[str, Any]:
    """The model's config."""
    head = linear_head()
    if name == "cid":
        head["type"] = "mmkd.ContextClsHead"
    model = classifier(head=head, norm=True, dropout=0.2)
    if name == "sskd":
        model["data_preprocessor"]["type"] = "mmkd.RotationPreprocessor"
    return model
