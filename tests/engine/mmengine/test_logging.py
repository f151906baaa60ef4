"""What a distilled run logs, and what of it is optimised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner

from helpers.toy import LossRecorder, Probe, distill, toy_config, train
from mmkd.engine import step_clock
from mmkd.engine.step_clock import StepClock

TERMS = dict(deep=dict(weight=0.5), early=dict(level=0, weight=0.25))


def test_scalars(tmp_path: Path, teacher: dict) -> None:
    recorder = LossRecorder()
    runner = train(toy_config(tmp_path, **distill(teacher, TERMS)), recorder)
    for logged in recorder.logged:
        terms = {name: logged[f"loss_distill_{name}"] for name in TERMS}
        for name, term in TERMS.items():
            assert terms[name] == pytest.approx(term["weight"] * logged[f"distill_{name}"])
            assert logged[f"distill_weight_{name}"] == term["weight"]
        task = logged["loss_cls"] + logged["losses_size"]
        assert logged["distill_ratio"] == pytest.approx(sum(terms.values()) / task, rel=1e-4)
        assert logged["loss"] == pytest.approx(task + sum(terms.values()))

    (file,) = Path(runner.log_dir).glob("vis_data/scalars.json")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 8
    keys = {"distill_ratio", "teacher_time_share"}
    kinds = ("distill_", "loss_distill_", "distill_weight_", "distill_share_")
    keys |= {f"{kind}{name}" for kind in kinds for name in TERMS}
    for line in lines:
        assert keys <= set(line)
        assert all(0 < line[f"distill_share_{name}"] < 1 for name in TERMS)
        assert 0 < line["teacher_time_share"] < 1
    assert lines[0]["distill_ratio"] == pytest.approx(recorder.logged[0]["distill_ratio"])


def test_only_the_weighted_terms_are_optimised(tmp_path: Path, teacher: dict) -> None:
    """The gradient is linear in the weights: nothing else joins the objective."""

    def first_gradient(*weights: float) -> torch.Tensor:
        found: list[torch.Tensor] = []

        def keep(runner: Runner) -> None:
            def before_step(*args: object) -> None:
                grads = [p.grad.flatten() for p in runner.model.parameters()]
                found.append(torch.cat(grads).double())

            runner.optim_wrapper.optimizer.register_step_pre_hook(before_step)

        terms = {
            name: dict(term, weight=w)
            for (name, term), w in zip(TERMS.items(), weights, strict=True)
        }
        settings = {**distill(teacher, terms), "train_cfg.max_epochs": 1}
        train(toy_config(tmp_path, **settings), Probe(before_train=keep))
        return found[0]

    plain, deep = first_gradient(0.0, 0.0), first_gradient(1.0, 0.0)
    early, both = first_gradient(0.0, 1.0), first_gradient(0.5, 2.0)
    expected = plain + 0.5 * (deep - plain) + 2.0 * (early - plain)
    assert not torch.allclose(plain, deep)
    torch.testing.assert_close(both, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("weight", "key"), [(0.0, "weight"), (dict(share=0), "weight.share")])
def test_a_weight_of_zero_is_announced(
    tmp_path: Path, teacher: dict, capfd: pytest.CaptureFixture[str], weight: Any, key: str
) -> None:
    train(toy_config(tmp_path, **distill(teacher, dict(off=dict(weight=weight)))))
    assert f"terms.off.{key} is 0" in "".join(capfd.readouterr())


def test_the_share_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(step_clock.time, "perf_counter", lambda: now)
    clock = StepClock(torch.device("cpu"))
    assert clock.share is None
    for marks, share in (([0, 2, 5, 12], 3 / 12), ([20, 21, 23, 24, 28, 30], 6 / 10)):
        first, *inner, last = map(float, marks)
        now = first
        clock.start_step()
        for begin, end in zip(inner[::2], inner[1::2], strict=True):
            now = begin
            with clock.teacher():
                now = end
        now = last
        clock.stop_step()
        assert clock.share == pytest.approx(share)
