"""Terms are on when their schedule says so; the teacher runs only then."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from mmengine.runner import Runner

from helpers.toy import LossRecorder, Probe, distill, distill_hook_of, toy_config, train
from mmkd.engine.mmengine import distill_hook

EPOCHS, LENGTH = 3, 4
SCHEDULES: dict[str, tuple[dict, list[float]]] = {
    "always": (dict(), [1.0] * 12),
    "from epoch 1": (dict(begin=1), [0.0] * 4 + [1.0] * 8),
    "until epoch 2": (dict(end=2), [1.0] * 8 + [0.0] * 4),
    "half epochs": (dict(begin=0.5, end=1.5), [0.0] * 2 + [1.0] * 4 + [0.0] * 6),
    "iterations": (dict(begin=3, end=5, by_epoch=False), [0.0] * 3 + [1.0] * 2 + [0.0] * 7),
    "ramp of an epoch": (dict(begin=1, ramp=1), [0.0] * 4 + [0, 0.25, 0.5, 0.75] + [1.0] * 4),
    "ramp of iterations": (
        dict(ramp=5, by_epoch=False, end=8),
        [0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1] + [0.0] * 4,
    ),
    "never": (dict(begin=7), [0.0] * 12),
    # The run's seed is 3.
    "dropped": (
        dict(drop=0.5),
        [float(Random(f"3 teacher {i}").random() >= 0.5) for i in range(12)],
    ),
}


class TeacherCalls:
    """How often the teacher's backbone ran in every iteration."""

    def __init__(self) -> None:
        self.of_iterations: list[int] = []
        self.probe = Probe(before_train=self.watch, before_train_iter=self.start)

    def start(self, runner: Runner) -> None:
        self.of_iterations.append(0)

    def watch(self, runner: Runner) -> None:
        (teacher,) = distill_hook_of(runner).teachers.values()
        teacher.model.backbone.register_forward_pre_hook(self.count)

    def count(self, *args: Any) -> None:
        self.of_iterations[-1] += 1


def factors(logged: list[dict[str, float]], name: str, weight: float) -> list[float]:
    """The factor of a term's weight in every iteration, from what was logged."""
    weighted, raw = f"loss_distill_{name}", f"distill_{name}"
    assert all((weighted in each) == (raw in each) for each in logged)
    return [each[weighted] / each[raw] / weight if raw in each else 0.0 for each in logged]


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_term(tmp_path: Path, teacher: dict, name: str) -> None:
    schedule, expected = SCHEDULES[name]
    recorder, calls = LossRecorder(), TeacherCalls()
    terms = dict(one=dict(weight=0.5, schedule=schedule))
    settings = {**distill(teacher, terms), "train_cfg.max_epochs": EPOCHS}
    train(toy_config(tmp_path, **settings), recorder, calls.probe)
    assert factors(recorder.logged, "one", 0.5) == pytest.approx(expected)
    assert calls.of_iterations == [int(factor > 0) for factor in expected]
    has_ratio = ["distill_ratio" in logged for logged in recorder.logged]
    assert has_ratio == [factor > 0 for factor in expected]


def test_several_terms(tmp_path: Path, teacher: dict) -> None:
    names = ("from epoch 1", "until epoch 2", "iterations")
    terms = {
        f"t{i}": dict(level=i % 2, weight=1.0 + i, schedule=SCHEDULES[name][0])
        for i, name in enumerate(names)
    }
    recorder, calls = LossRecorder(), TeacherCalls()
    settings = {**distill(teacher, terms), "train_cfg.max_epochs": EPOCHS}
    train(toy_config(tmp_path, **settings), recorder, calls.probe)
    for i, name in enumerate(names):
        assert factors(recorder.logged, f"t{i}", 1.0 + i) == pytest.approx(SCHEDULES[name][1])
    assert calls.of_iterations == [1] * 12


def test_a_teacher_whose_terms_are_off_does_not_run(tmp_path: Path, teacher: dict) -> None:
    calls: dict[str, int] = dict(early=0, late=0)

    def watch(runner: Runner) -> None:
        for name, each in distill_hook_of(runner).teachers.items():

            def count(module: Any, args: Any, name: str = name) -> None:
                calls[name] += 1

            each.model.backbone.register_forward_pre_hook(count)

    terms = dict(
        first=dict(source="early", schedule=dict(end=1)),
        second=dict(source="late", schedule=dict(begin=1)),
    )
    settings = {**distill(dict(early=teacher, late=teacher), terms), "train_cfg.max_epochs": EPOCHS}
    train(toy_config(tmp_path, **settings), Probe(before_train=watch))
    assert calls == dict(early=4, late=8)


def test_a_resumed_run_continues_the_schedule(tmp_path: Path, teacher: dict) -> None:
    schedule, expected = SCHEDULES["ramp of an epoch"]
    settings = {
        **distill(teacher, dict(one=dict(schedule=schedule))),
        "train_cfg.max_epochs": EPOCHS,
    }
    runner = train(toy_config(tmp_path, **settings))
    recorder = LossRecorder()
    file = str(Path(runner.work_dir) / "epoch_1.pth")
    train(toy_config(tmp_path, **settings, load_from=file, resume=True), recorder)
    assert factors(recorder.logged, "one", 1.0) == pytest.approx(expected[4:])


def test_epochs_of_an_iteration_based_run(tmp_path: Path, teacher: dict) -> None:
    recorder = LossRecorder()
    config = toy_config(tmp_path, **distill(teacher, dict(one=dict(schedule=dict(begin=0.5)))))
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=4)
    config.train_dataloader.sampler.type = "InfiniteSampler"
    config.default_hooks.checkpoint = None
    train(config, recorder)
    assert factors(recorder.logged, "one", 1.0) == [0.0, 0.0, 1.0, 1.0]


def test_levels_become_terms(tmp_path: Path, teacher: dict) -> None:
    recorder = LossRecorder()
    terms = dict(stage=dict(level=[0, 1], weight=0.1), other=dict(student_level=1, teacher_level=0))
    runner = train(toy_config(tmp_path, **distill(teacher, terms)), recorder)
    distillers = distill_hook_of(runner).distillers
    channels = {
        name: (each.student_channels, each.teacher_channels) for name, each in distillers.items()
    }
    assert channels == dict(stage_0=(4, 6), stage_1=(8, 12), other=(8, 6))
    for name in distillers:
        assert f"loss_distill_{name}" in recorder.logged[-1]
    # Every projector begins from a seed of its own.
    weights = [each.projector.linear.weight.flatten()[:24] for each in distillers.values()]
    assert not weights[0].equal(weights[1])


@pytest.mark.parametrize("processes", [1, 2])
def test_an_epoch_of_an_infinite_sampler(
    tmp_path: Path, teacher: dict, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its length is the whole set's on every process."""
    runner = Runner.from_cfg(
        toy_config(tmp_path, **{"train_dataloader.sampler": dict(type="InfiniteSampler")})
    )
    runner.build_train_loop(runner._train_loop)
    monkeypatch.setattr(runner, "_world_size", processes)
    assert distill_hook.iterations_per_epoch(runner) == LENGTH // processes


def test_what_has_ended_is_logged_as_zero(tmp_path: Path, teacher: dict) -> None:
    terms = dict(short=dict(schedule=dict(end=1)), long=dict(schedule=dict(end=2)))
    settings = {**distill(teacher, terms), "train_cfg.max_epochs": EPOCHS}
    runner = train(toy_config(tmp_path, **settings, log_processor=dict(window_size=1)))
    (file,) = Path(runner.log_dir).glob("vis_data/scalars.json")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for name, end in (("short", 1), ("long", 2)):
        for prefix in ("distill_", "loss_distill_", "distill_weight_", "distill_share_"):
            values = [line[f"{prefix}{name}"] for line in lines]
            assert all(value != 0 for value in values[: end * LENGTH])
            assert not any(values[end * LENGTH :])
    assert lines[-1]["distill_ratio"] == lines[-1]["teacher_time_share"] == 0
