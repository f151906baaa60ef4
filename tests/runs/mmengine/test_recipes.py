"""Runs of the MM family are taken up where they were interrupted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from helpers.interruption import Killed, kill_after
from mmkd import demo
from mmkd.data import make_digits
from mmkd.runs.mmengine.recipes import MMRecipe
from mmkd.runs.running import (
    RunResult,
    differences,
    fingerprint_of,
    stored_result,
    train_and_evaluate,
)

# 12 images make 2 iterations an epoch.
ITERATIONS_AN_EPOCH, EPOCHS = 2, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digits(tmp_path_factory.mktemp("data"), num_train=12, num_val=4, image_size=64)


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = demo.digits_config("teacher", 0, data, tmp_path_factory.mktemp("teacher"))
    config.train_cfg.max_epochs = 1
    return Path(train_and_evaluate(MMRecipe(config), "teacher").checkpoint)


def recipe(role: str, data: Path, teacher: Path, out: Path, val_interval: int = 1) -> MMRecipe:
    config = demo.digits_config(role, 3, data, out)
    config.train_dataloader.batch_size = 6
    config.train_cfg = dict(
        type="EpochBasedTrainLoop", max_epochs=EPOCHS, val_interval=val_interval
    )
    config.default_hooks.checkpoint = dict(type="CheckpointHook", interval=1)
    # It draws from numpy's generator, whose state no checkpoint of MMEngine's holds.
    config.train_dataloader.dataset.pipeline.insert(2, dict(type="RandomFlip", prob=0.5))
    if role == "distilled":
        config.custom_hooks[0].teacher.checkpoint = str(teacher)
    return MMRecipe(config)


def weights(result: RunResult) -> dict[str, torch.Tensor]:
    return torch.load(result.checkpoint, weights_only=False)["state_dict"]


def assert_same_outcome(one: RunResult, other: RunResult) -> None:
    assert one.scores == other.scores
    assert one.initial_weights == other.initial_weights
    assert one.detections.read_text() == other.detections.read_text()
    left, right = weights(one), weights(other)
    assert list(left) == list(right)
    assert [key for key in left if not torch.equal(left[key], right[key])] == []


@pytest.fixture(scope="module")
def whole(
    data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], RunResult]:
    """Runs that were not interrupted."""
    out = tmp_path_factory.mktemp("whole")

    @cache
    def run(role: str, val_interval: int = 1) -> RunResult:
        made = recipe(role, data, teacher, out / str(val_interval), val_interval)
        return train_and_evaluate(made, role)

    return run


@pytest.mark.parametrize(
    ("role", "val_interval", "iterations"),
    [("plain", 1, 3), ("plain", 2, 5), ("distilled", 1, 5)],
)
def test_a_killed_run_ends_as_if_it_had_not_been(
    role: str,
    val_interval: int,
    iterations: int,
    data: Path,
    teacher: Path,
    whole: Callable[[str, int], RunResult],
    tmp_path: Path,
) -> None:
    killed = recipe(role, data, teacher, tmp_path, val_interval)
    with pytest.raises(Killed):
        train_and_evaluate(killed, role, kill_after(iterations))
    assert stored_result(killed) is None
    seen: list[int] = []
    resumed = train_and_evaluate(killed, role, lambda: seen.append(1))
    done = iterations // ITERATIONS_AN_EPOCH
    assert len(seen) == (EPOCHS - done) * ITERATIONS_AN_EPOCH
    assert_same_outcome(resumed, whole(role, val_interval))


@HOOKS.register_module()
class SavedBehindValidations(Hook):
    """As ``save_best`` does, but to go on from."""

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        name = f"validated_{runner.epoch}.pth"
        runner.save_checkpoint(runner.work_dir, name, by_epoch=False)
        (Path(runner.work_dir) / "last_checkpoint").write_text(name)


@pytest.mark.parametrize("role", ["plain", "distilled"])
def test_a_checkpoint_from_behind_a_validation_does_not_repeat_its_draws(
    role: str, data: Path, teacher: Path, whole: Callable[[str, int], RunResult], tmp_path: Path
) -> None:
    killed = recipe(role, data, teacher, tmp_path)
    hooks = killed.config.get("custom_hooks") or []
    killed.config.custom_hooks = [*hooks, dict(type="SavedBehindValidations")]
    with pytest.raises(Killed):
        train_and_evaluate(killed, role, kill_after(ITERATIONS_AN_EPOCH + 1))
    assert (killed.work_dir / "last_checkpoint").read_text() == "validated_1.pth"
    assert_same_outcome(train_and_evaluate(killed, role), whole(role, 1))


def test_the_times_of_all_parts_add_up(data: Path, teacher: Path, tmp_path: Path) -> None:
    killed = recipe("plain", data, teacher, tmp_path)
    with pytest.raises(Killed):
        train_and_evaluate(killed, "plain", kill_after(5))
    file = killed.work_dir / "started.json"
    started = json.loads(file.read_text())
    assert len(started["epoch_seconds"]) == 2
    started["epoch_seconds"] = [1000.0, 2000.0]
    file.write_text(json.dumps(started))
    seconds = train_and_evaluate(killed, "plain").training_seconds
    last = json.loads(file.read_text())["epoch_seconds"][2]
    assert 0 < last < 60
    assert seconds == 3000 + last


def test_killed_between_its_last_epoch_and_its_score(
    data: Path,
    teacher: Path,
    whole: Callable[[str, int], RunResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed = recipe("plain", data, teacher, tmp_path)

    def kill(self: MMRecipe, runner: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(MMRecipe, "scores", kill)
        train_and_evaluate(killed, "plain")
    (killed.work_dir / "detections.bbox.json").unlink()
    # Nothing is trained any more.
    resumed = train_and_evaluate(killed, "plain", kill_after(1))
    assert_same_outcome(resumed, whole("plain", 1))


def leave_others(folder: Path) -> None:
    """Whole, newer, and another run's; and no word of which is this one's."""
    torch.save({}, folder / "epoch_3.pth")
    torch.save([Path()], folder / "iter_6.pth")
    (folder / "last_checkpoint").write_text("")


def cut_newest(folder: Path) -> None:
    os.truncate(folder / "epoch_2.pth", 1000)


def spoil_all(folder: Path) -> None:
    cut_newest(folder)
    (folder / "epoch_1.pth").write_bytes(b"")


@pytest.mark.parametrize(("damage", "done"), [(leave_others, 2), (cut_newest, 1), (spoil_all, 0)])
def test_damaged_resume_points(
    damage: Callable[[Path], object],
    done: int,
    data: Path,
    teacher: Path,
    whole: Callable[..., RunResult],
    tmp_path: Path,
) -> None:
    """The run goes on from the one before, or begins again."""
    killed = recipe("plain", data, teacher, tmp_path)
    with pytest.raises(Killed):
        train_and_evaluate(killed, "plain", kill_after(5))
    damage(killed.work_dir)
    seen: list[int] = []
    resumed = train_and_evaluate(killed, "plain", lambda: seen.append(1))
    assert len(seen) == (EPOCHS - done) * ITERATIONS_AN_EPOCH
    assert_same_outcome(resumed, whole("plain"))


def test_gradients_that_wait_at_an_epochs_end(data: Path, teacher: Path, tmp_path: Path) -> None:
    """Of a plain run too: a step of 3 iterations, in epochs of 2."""

    def accumulating(out: Path) -> MMRecipe:
        made = recipe("plain", data, teacher, out)
        made.config.optim_wrapper.accumulative_counts = 3
        return made

    killed = accumulating(tmp_path / "killed")
    with pytest.raises(Killed):
        train_and_evaluate(killed, "plain", kill_after(3))
    resumed = train_and_evaluate(killed, "plain")
    assert_same_outcome(resumed, train_and_evaluate(accumulating(tmp_path / "whole"), "plain"))


def test_a_run_with_other_settings_begins_again(data: Path, teacher: Path, tmp_path: Path) -> None:
    first = recipe("plain", data, teacher, tmp_path)
    with pytest.raises(Killed):
        train_and_evaluate(first, "plain", kill_after(3))
    assert differences(first.work_dir, fingerprint_of(first)) == []
    other = recipe("plain", data, teacher, tmp_path)
    other.config.optim_wrapper.optimizer.lr *= 2
    assert differences(other.work_dir, fingerprint_of(other)) == [
        "optim_wrapper.optimizer.lr was 0.002 and is 0.004"
    ]
    # Killed before a checkpoint of its own, it must not take the first one's either.
    with pytest.raises(Killed):
        train_and_evaluate(other, "plain", kill_after(1))
    result = train_and_evaluate(other, "plain")
    alone = recipe("plain", data, teacher, tmp_path / "alone")
    alone.config.optim_wrapper.optimizer.lr *= 2
    assert_same_outcome(result, train_and_evaluate(alone, "plain"))


def test_what_is_known_of_a_run(data: Path, whole: Callable[[str, int], RunResult]) -> None:
    plain, distilled = whole("plain", 1), whole("distilled", 1)
    assert plain.initial_weights == distilled.initial_weights
    assert plain.annotations == str(data / "annotations/val.json")
    assert plain.images == str(data / "val")
    assert plain.iterations == EPOCHS * ITERATIONS_AN_EPOCH
    assert plain.environment["torch"] == torch.__version__


def test_workers_do_not_live_on(data: Path, teacher: Path, tmp_path: Path) -> None:
    one = recipe("plain", data, teacher, tmp_path)
    one.config.train_dataloader.merge(Config(dict(num_workers=2, persistent_workers=True)))
    assert one.config_to_run().train_dataloader.persistent_workers is False
    assert one.config.train_dataloader.persistent_workers is True
