"""Distillers with modules, memories and stages of their own keep what every term promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.classifier_distillers import ITERATIONS, TERMS, distiller_config, student_of
from helpers.classifier_toy import classifier_config, write_classifier
from helpers.toy import LossRecorder, checkpoint_of, differences, train

FLIPS = {"train_dataloader.dataset.flip": True}
every_distiller = pytest.mark.parametrize("name", list(TERMS))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return write_classifier(tmp_path_factory.mktemp("teacher"))


def end_of(runner: object, epoch: int = 3) -> dict:
    checkpoint = checkpoint_of(runner, f"epoch_{epoch}.pth")
    return {k: v for k, v in checkpoint.items() if k not in ("meta", "message_hub")}


@every_distiller
def test_resume_ends_in_the_bits_of_one_run(tmp_path: Path, teacher: dict, name: str) -> None:
    """From before a later stage begins and from after it; banks, contexts and counts go on."""
    runner = train(distiller_config(tmp_path, teacher, name, **FLIPS))
    whole = end_of(runner)
    for epoch in (1, 2):
        before = end_of(runner, epoch)["mmkd"]["distillers"]
        assert differences(before, whole["mmkd"]["distillers"])
        file = str(Path(runner.work_dir) / f"epoch_{epoch}.pth")
        again = distiller_config(tmp_path, teacher, name, load_from=file, resume=True, **FLIPS)
        assert not differences(whole, end_of(train(again)))


@every_distiller
def test_weight_zero_is_plain_training(tmp_path: Path, teacher: dict, name: str) -> None:
    plain = classifier_config(tmp_path, student_of(name), **FLIPS)
    plain.train_cfg.max_epochs = 3
    off = distiller_config(tmp_path, teacher, name, dict(weight=0.0), **FLIPS)
    without, beside = (end_of(train(config)) for config in (plain, off))
    assert not differences(without["state_dict"], beside["state_dict"])
    assert not differences(without["optimizer"]["state"], beside["optimizer"]["state"])


@every_distiller
def test_a_term_that_has_ended_moves_nothing_any_more(
    tmp_path: Path, teacher: dict, name: str
) -> None:
    losses = LossRecorder()
    config = distiller_config(tmp_path, teacher, name, dict(schedule=dict(end=2)))
    runner = train(config, losses)
    logged = [each.get(f"distill_{name}") for each in losses.logged]
    assert all(logged[: 2 * ITERATIONS]) and logged[2 * ITERATIONS :] == [None] * ITERATIONS
    ended, last = (end_of(runner, epoch)["mmkd"]["distillers"] for epoch in (2, 3))
    assert not differences(ended, last)
