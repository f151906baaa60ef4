"""What a distilled run shows while it trains, and what it leaves in ``results.csv``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from ultralytics.engine import trainer as trainer_module
from ultralytics.utils.callbacks import tensorboard

from helpers.yolo_toy import TERM, YOLOToy, distil, plain, read_results
from mmkd.engine import step_clock

TASK = ("box_loss", "cls_loss", "dfl_loss")
METRICS = [f"metrics/{name}(B)" for name in ("precision", "recall", "mAP50", "mAP50-95")]
VAL = [f"val/{name}" for name in TASK]
DISTILL = [f"distill/{name}" for name in (TERM, "ratio", "teacher_time_share")]
NO_VAL = dict(val=False)
# The share of the teacher in the steps of an epoch; other steps of a clock between them.
TEACHER_SECONDS = (1, 2, 5, 0.5)
SHARES = [seconds / (seconds + 2) for seconds in TEACHER_SECONDS]


class Report:
    """A run, and what every iteration told.

    Attributes:
        items: For each iteration, what the trainer logs.
        lines: The progress line after each iteration.
    """

    def __init__(self, toy: YOLOToy, terms: Any, **settings: Any) -> None:
        self.items: list[dict[str, float]] = []
        self.lines: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer_module, "TQDM", self._progress_bar())
            clock = SimpleNamespace(perf_counter=self._clock().__next__)
            patch.setattr(step_clock, "time", clock)
            on = dict(on_train_batch_end=self._note)
            self.trainer = distil(toy, terms, on=on, **settings)
        self.results = read_results(self.trainer)

    def _progress_bar(self) -> type:
        lines = self.lines

        class ProgressBar(trainer_module.TQDM):
            def set_description(self, text: str) -> None:
                lines.append(text)

        return ProgressBar

    @staticmethod
    def _clock() -> Iterator[float]:
        """Read at the step's begin, the teacher's begin and end, and the step's end."""
        now = 0.0
        for seconds in cycle(TEACHER_SECONDS):
            for passed in (1, 1, seconds, 1):
                now += passed
                yield now

    def _note(self, trainer: Any) -> None:
        self.items.append({key: float(value) for key, value in trainer.loss_items.items()})

    def epochs(self, name: str) -> list[list[float]]:
        """The values of every epoch's iterations."""
        values = [items[name] for items in self.items]
        length = len(values) // len(self.results["epoch"])
        return [values[i : i + length] for i in range(0, len(values), length)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def report(toy: YOLOToy) -> Report:
    """One term of weight 0.5."""
    return Report(toy, {TERM: dict(weight=0.5)})


@pytest.fixture(scope="module")
def several(toy: YOLOToy) -> Report:
    """Two terms, of which one begins in the middle of the first epoch; no validation."""
    late = dict(schedule=dict(begin=2, by_epoch=False), weight=0.25)
    return Report(toy, dict(early=dict(level=0), late=late), **NO_VAL)


def test_the_columns(toy: YOLOToy, report: Report, several: Report) -> None:
    """Those of a plain run first, so that one which goes on from a distilled run fits as well."""
    runs: tuple[tuple[Report, list[str], list[str], dict], ...] = (
        (report, ["train/kd_loss"], [TERM], {}),
        (several, ["train/kd_early_loss", "train/kd_late_loss"], ["early", "late"], NO_VAL),
    )
    for run, losses, terms, settings in runs:
        expected = list(read_results(plain(toy, **settings)))
        assert list(run.results)[: len(expected)] == expected
        assert list(run.results)[len(expected) :] == [
            *losses,
            # The groups of the projectors' weights and biases.
            "lr/pg3",
            "lr/pg4",
            *(f"distill/{kind}{name}" for name in terms for kind in ("", "weight_", "share_")),
            "distill/ratio",
            "distill/teacher_time_share",
        ]
        assert run.results["epoch"] == [1, 2]


def test_without_validation_nothing_is_reported_of_it(several: Report) -> None:
    """The last epoch is validated nevertheless."""
    assert all(several.results[name][0] == 0 for name in (*VAL, *METRICS))
    assert all(several.results[name][1] > 0 for name in VAL)


def test_losses_are_means_over_the_epoch(report: Report, several: Report) -> None:
    for run, own in ((report, ("kd_loss",)), (several, ("kd_early_loss", "kd_late_loss"))):
        for name in (*TASK, *own):
            expected = [mean(values) for values in run.epochs(name)]
            assert run.results[f"train/{name}"] == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert several.epochs("kd_late_loss")[0][:2] == [0, 0]


def test_the_distance_is_reported_without_its_weight(report: Report) -> None:
    expected = [value / 0.5 for value in report.results["train/kd_loss"]]
    assert report.results[f"distill/{TERM}"] == pytest.approx(expected, rel=1e-5)


def test_the_distance_is_the_mean_over_the_batches_that_measured_it(several: Report) -> None:
    measured = [
        [value / weight for value in values if value]
        for name, weight in (("late", 0.25), ("early", 1.0))
        for values in several.epochs(f"kd_{name}_loss")
    ]
    assert [len(values) for values in measured] == [2, 4, 4, 4]
    reported = several.results["distill/late"] + several.results["distill/early"]
    assert reported == pytest.approx([mean(values) for values in measured], rel=1e-5)


def test_the_ratio_is_that_of_distillation_to_task(report: Report, several: Report) -> None:
    for run in (report, several):
        names = list(run.items[0])
        ratios = [
            sum(items[n] for n in names[3:]) / sum(items[n] for n in names[:3])
            for items in run.items
        ]
        length = len(ratios) // len(run.results["epoch"])
        expected = torch.tensor(ratios).view(-1, length).mean(1).tolist()
        assert run.results["distill/ratio"] == pytest.approx(expected, rel=1e-4)


def test_the_teachers_share_is_that_of_the_epochs_time(report: Report, several: Report) -> None:
    assert report.results["distill/teacher_time_share"] == pytest.approx([mean(SHARES)] * 2)
    assert several.results["distill/teacher_time_share"] == pytest.approx([mean(SHARES)] * 2)


def test_ultralytics_loggers_get_what_results_csv_holds(
    toy: YOLOToy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own callbacks for TensorBoard write all of it, at the epoch that it belongs to."""
    written: dict[str, dict[int, float]] = {}
    writer = SimpleNamespace(
        add_scalar=lambda name, value, step: written.setdefault(name, {}).update({step: value})
    )
    monkeypatch.setattr(tensorboard, "WRITER", writer, raising=False)
    events = ("on_train_epoch_end", "on_fit_epoch_end")
    trainer = distil(toy, {TERM: {}}, on={name: getattr(tensorboard, name) for name in events})
    results = read_results(trainer)
    assert {"train/kd_loss", *DISTILL} <= set(written)
    assert set(written) == set(results) - {"epoch", "time"}
    for name in ("train/kd_loss", *DISTILL, "lr/pg3"):
        assert list(written[name]) == [1, 2]
        assert results[name] == pytest.approx(list(written[name].values()), rel=1e-5)


def test_the_head_of_the_progress_lines(report: Report, several: Report) -> None:
    """A name a column, each eleven characters wide."""
    for run, own in ((report, ["kd_loss"]), (several, ["kd_early", "kd_late"])):
        (head,) = run.trainer.progress_string().splitlines()[1:]
        names = [head[begin : begin + 11].strip() for begin in range(0, len(head), 11)]
        assert names == ["Epoch", "GPU_mem", *TASK, *own, "Instances", "Size"]


def test_the_progress_lines(report: Report, several: Report) -> None:
    for run in (report, several):
        assert len(run.lines) == len(run.items) == 2 * 4
        losses = list(run.items[0])
        for index, line in enumerate(run.lines):
            names = ["Epoch", "GPU_mem", *losses, "Instances", "Size"]
            values = dict(zip(names, line.split(), strict=True))
            epoch, done = divmod(index, 4)
            assert values["Epoch"] == f"{epoch + 1}/2"
            assert values["Size"] == "64"
            # Means over the epoch so far, in four digits.
            for name in losses:
                expected = mean(run.epochs(name)[epoch][: done + 1])
                assert float(values[name]) == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_the_plots(report: Report, several: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[float]] = {}
    set_title = plt.Axes.set_title

    def note(axes: plt.Axes, label: str, **settings: Any) -> None:
        set_title(axes, label, **settings)
        drawn[label] = np.asarray(axes.lines[0].get_ydata()).tolist()

    monkeypatch.setattr(plt.Axes, "set_title", note)
    for run, own in ((report, ["kd_loss"]), (several, ["kd_early_loss", "kd_late_loss"])):
        drawn.clear()
        run.trainer.plot_metrics()
        losses = [f"train/{name}" for name in (*TASK, *own)]
        assert set(drawn) == {*losses, *VAL, *METRICS}
        for name, values in drawn.items():
            assert values == pytest.approx(run.results[name])
        assert (run.trainer.save_dir / "results.png").stat().st_size > 0
