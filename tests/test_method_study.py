"""The method study trains what fits together; its figures are joined, and judged by their seeds."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from mmkd.terms import parse_terms
from mmkd.work_dirs.environment import describe_environment
from mmkd.work_dirs.run_result import RunResult

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[None]:
    """Their modules can be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if (BENCHMARKS / f"{name}.py").is_file():
            sys.modules.pop(name)


@pytest.fixture(scope="module")
def results(benchmarks: None) -> Any:
    import method_results

    return method_results


@pytest.fixture(scope="module")
def study(benchmarks: None) -> Any:
    import method_study

    return method_study


def run(name: str, seed: int, top1: float) -> RunResult:
    return RunResult(name, seed, dict(top1=top1), 7, 1.0, "", "")


def test_calls_are_joined(results: Any) -> None:
    from strong_teacher import Teacher

    teacher = Teacher("strong", "config", 64, "checkpoint", 83.5)
    first = results.with_runs({}, teacher, [run("plain", 0, 60.0), run("sp", 0, 61.0)], 10)
    found = results.with_runs(first, teacher, [run("plain", 0, 60.0), run("sp", 1, 63.0)], 10)
    assert found["strong"]["methods"] == dict(plain={"0": 60.0}, sp={"0": 61.0, "1": 63.0})
    assert found["strong"]["parameters"] == dict(plain=7, sp=7)
    assert found["strong"]["accuracy"] == 83.5
    assert found["strong"]["environment"] == describe_environment()
    other = results.with_runs(found, Teacher("ordinary", "", 64, "", 70.0), [], 20)
    assert other["strong"] == found["strong"] and other["ordinary"]["epochs"] == 20


def test_another_schedule_is_refused_before_training(
    study: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "method_study.json"
    entry = dict(epochs=10, methods={})
    out.write_text(json.dumps(dict(strong=entry)))

    def begins(_: Any) -> None:
        raise RuntimeError("it trains")

    monkeypatch.setattr(study, "run_all", begins)
    monkeypatch.setattr(study, "strong_teacher", lambda *_: pytest.fail("it is tested"))

    def call(*arguments: str) -> str:
        names = ["study", "--data", str(tmp_path), "--runs", str(tmp_path), *arguments]
        monkeypatch.setattr(sys, "argv", names)
        with pytest.raises(SystemExit):
            study.main()
        return capsys.readouterr().err

    for only in ((), ("--only-strong",)):
        said = call("--strong", "weights", *only)
        assert "strong teacher after 10 epochs, not after 20; give another --out" in said
    assert json.loads(out.read_text()) == dict(strong=entry)
    # The file tells nothing of the ordinary teacher.
    with pytest.raises(RuntimeError, match="it trains"):
        call()
    assert "holds trainings of 20 epochs: give another --runs" in call("--epochs", "10")


def test_trends_by_seed(benchmarks: None) -> None:
    from study import trend_table

    held = {"a": [True, True], "b": [False, True], "c": [False, False], "d": [True], "e": [False]}
    assert trend_table(held)[2:] == [
        "| a | 2 of 2 | agrees |",
        "| b | 1 of 2 | unclear |",
        "| c | 0 of 2 | disagrees |",
        "| d | 1 of 1 | one seed |",
        "| e | 0 of 1 | one seed |",
    ]


@pytest.mark.parametrize(
    ("better", "worse", "mark"),
    [
        # One seed has no other to agree with.
        ({"0": 70.0}, {"0": 60.0}, "·"),
        ({"0": 70.0, "1": 71.0}, {"0": 67.9, "1": 68.8}, "+"),  # 2 * sqrt(1 / 2 + 1 / 2) = 2
        ({"0": 70.0, "1": 71.0}, {"0": 68.1, "1": 69.0}, "·"),
        ({"0": 67.9, "1": 68.8}, {"0": 70.0, "1": 71.0}, "-"),
        # 2 * sqrt(1 / 3 + 1 / 3) = 1.6
        ({"0": 70.0, "1": 71.0, "2": 72.0}, {"0": 68.0, "1": 69.0, "2": 70.0}, "+"),
        # The first seed disagrees.
        ({"0": 68.0, "1": 75.0, "2": 75.0}, {"0": 68.5, "1": 69.0, "2": 69.0}, "·"),
        # Of those that are shared they differ by 1.5, of all by 4.
        ({"0": 75.0, "1": 66.5, "2": 66.5}, {"1": 65.0, "2": 65.0, "3": 61.0}, "·"),
        ({"0": 60.0, "1": 75.0, "2": 75.0}, {"1": 65.0, "2": 66.0, "3": 81.0}, "+"),
        ({"0": 75.0}, {"1": 65.0}, "·"),
    ],
)
def test_marks(results: Any, better: dict, worse: dict, mark: str) -> None:
    assert results._mark(better, worse, 1.0) == mark
    assert results._mark(better, worse, None) == "·"


def test_the_table_ranks_and_says_what_agrees(results: Any, tmp_path: Path) -> None:
    scores = {
        "plain": {"0": 60.0, "1": 60.2},
        "rkd": {"0": 55.0, "1": 55.2},
        # Over plain on seeds 0 and 1 alone, where it is 50.1 against 60.1.
        "sp": {"0": 50.0, "1": 50.2, "2": 50.6},
        "cc": {"2": 49.0},
    }
    made = dict(environment=dict(command="`python study.py`"), methods=scores)
    entry = dict(epochs=20, accuracy=77.2, parameters=dict(plain=78042), **made)
    found = dict(ordinary=entry, strong=dict(epochs=10, accuracy=90.0, **made))
    cost = dict(
        seconds=dict(plain=0.02, sp=0.03),
        peak_bytes=dict(plain=2**20, sp=3 * 2**20),
        added_parameters=dict(plain=0, sp=1234),
    )
    out = tmp_path / "study.md"
    results.write_results(found, dict(ordinary=cost), out)
    text = out.read_text()
    lines, _, strong = text.partition("## From the strong teacher")
    assert results.INTRODUCTION in lines
    assert "20 epochs. The last call: `python study.py`" in lines.splitlines()
    for row in (
        "| 1 | plain | 2 | 60.1 ± 0.1 | +0.0 | 78,042 | 1.00 | +0 | 0 |",
        "| 2 | rkd | 2 | 55.1 ± 0.1 | -5.0 |  |  | |  |",
        "| 3 | sp | 3 | 50.3 ± 0.3 | -10.0 |  | 1.50 | +2 | 1,234 |",
        "| 4 | cc | 1 | 49.0 |  |  |  | |  |",
        # Chen et al.: sp 72.94 ± 0.23, plain 72.93 ± 0.28, rkd 71.90 ± 0.11; cc is another there.
        "| cc | 72.97 | 49.0 | ≠ | ≠ | ≠ |",
        "| sp | 72.94 | 50.3 ± 0.3 |  | = | - |",
        "| plain | 72.93 | 60.1 ± 0.1 |  |  | + |",
    ):
        assert row in lines.splitlines(), row
    count = "Of 2 pairs that the paper tells apart, 1 are in the published order, 1 in the opposite"
    assert count in lines
    # Another teacher's costs are not this one's.
    assert "| 3 | sp | 3 | 50.3 ± 0.3 | -10.0 |  |  | |  |" in strong.splitlines()
    assert json.loads(out.with_suffix(".json").read_text()) == found
    assert out.with_suffix(".png").is_file()
    out.with_suffix(".png").unlink()
    results.write_results(found, {}, out)
    assert not out.with_suffix(".png").exists() and "accuracy by cost" not in out.read_text()


@pytest.mark.parametrize(
    ("better", "worse", "mark"),
    [
        ("ensemble, q = 3", "crd", ""),  # 0.57 > 2 * sqrt(0.33^2 / 3 + 0.18^2 / 5) = 0.41
        ("crd", "SRRL", ""),  # 0.18 > 2 * sqrt(0.18^2 / 5 + 0.04^2 / 3) = 0.17
        ("fitnet", "KD, T = 4", "="),  # 0.17 < 0.34
        ("KD, T = 4", "plain", ""),  # 0.40 > 2 * sqrt(0.25^2 / 5 + 0.28^2 / 3) = 0.393
        ("plain", "rkd", ""),
        ("crd", "ft", "≠"),
    ],
)
def test_what_the_paper_does_not_tell_of_these_methods(
    results: Any, better: str, worse: str, mark: str
) -> None:
    first, second, third, *_, last = results.PUBLISHED
    assert results._not_compared(first, better, worse) == mark
    # With KD beside them there.
    assert results._not_compared(second, "crd", "plain") == "≠"
    assert results._not_compared(last, "crd", "plain") == "≠"
    assert not results._not_compared(third, "crd", "dkd")
    for title, names in results.OTHERWISE.items():
        assert set(names) <= results.PUBLISHED[title].keys()
    assert results.DEVIATIONS[first].keys() == results.PUBLISHED[first].keys()


def test_every_training_of_the_study_is_made(study: Any, tmp_path: Path) -> None:
    """Without training: students are built, terms read, of either teacher."""
    import method_settings

    args = Namespace(runs=tmp_path, data=tmp_path, epochs=20)
    made: dict[str, dict[str, Any]] = {}
    peer = dict(config="network.py", checkpoint="peer.pth")
    methods = method_settings.settings(20)
    hint, after_hint = method_settings.fitnet_stages(20)
    curricula = method_settings.curricula(peer, peer, peer, after_hint)
    assert tuple(curricula) == method_settings.CURRICULA
    blocks = dict(ordinary=6, strong=27)
    before = dict(hint=hint, itself=method_settings.assistant_itself())
    for teacher in method_settings.PAIRS.values():
        jobs = {
            name: study.job(name, setting, 0, teacher, args)
            for name, setting in {**methods, **curricula, **before}.items()
        }
        made[teacher.name] = {name: each.recipe for name, each in jobs.items()}
        assert {name for name, each in jobs.items() if each.cost != 1} == {"sskd"}
        for name, recipe in made[teacher.name].items():
            config = recipe.config
            with DefaultScope.overwrite_default_scope("mmpretrain"):
                student = MODELS.build(config.model)
            assert config.train_cfg.max_epochs == config.param_scheduler[-1].T_max == 20
            if name == "SimKD":
                assert student.head.fc.in_features == teacher.width
            if not config.custom_hooks:
                assert name == "plain"
                continue
            (hook,) = config.custom_hooks
            if methods.get(name, hint).teacher is None and name not in curricula:
                assert Path(hook.teacher.config).name in teacher.config
            sources = ["teacher"] if name != "densely guided" else ["teacher", "assistant"]
            for term in parse_terms(hook.terms.to_dict(), sources):
                assert all(student.get_submodule(tap.path) is not None for tap in term.student)
                if name == "afd" and term.name == "afd":
                    assert (len(term.student), len(term.teacher)) == (3, blocks[teacher.name])
                    scope = DefaultScope.overwrite_default_scope("mmpretrain")
                    with torch.device("meta"), scope:
                        theirs = MODELS.build(Config.fromfile(hook.teacher.config).model)
                    assert all(theirs.get_submodule(tap.path) is not None for tap in term.teacher)
    ordinary, strong = made.values()
    for name in made["strong"]:
        is_one = ordinary[name].work_dir == strong[name].work_dir
        assert is_one == (name in method_settings.ALONE)
        if is_one:
            assert ordinary[name].config.to_dict() == strong[name].config.to_dict()


def test_what_the_study_changes_of_the_published_settings(study: Any) -> None:
    import cifar_settings
    import method_settings

    methods = method_settings.settings(20)
    terms = methods["LogSum + KL"].terms
    assert (terms["feature"]["weight"], terms["kl"]["weight"]) == (2.0, 1.0)
    assert cifar_settings.MAIN["LogSum + KL"].terms["feature"]["weight"] == 1.0
    assert methods["SRRL"].terms["srrl"]["projector"]["initial"] == "he"
    (review,) = methods["reviewkd"].terms.values()
    assert review["loss"]["inner"] == 64 and review["schedule"]["ramp"] == pytest.approx(20 / 12)
    # 156 iterations an epoch: 30 and 60 of 240 epochs.
    (ft,), (sskd,) = (methods[name].terms.values() for name in ("ft", "sskd"))
    assert (ft["paraphrase"], sskd["pretext"]) == (390, 780)
    hint, after_hint = method_settings.fitnet_stages(20)
    assert hint.terms["hint"]["weight"] == 1 and hint.model["head"]["loss"]["loss_weight"] == 0
    assert method_settings.hint_epochs(20) == 2
    still = hint.changes["optim_wrapper"]["paramwise_cfg"]["custom_keys"]
    assert still["backbone.stages.2"] == still["head"] == dict(lr_mult=0.0, decay_mult=0.0)
    assert after_hint.terms["kd_early"]["schedule"] == dict(end=20, decay=20)
