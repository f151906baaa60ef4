"""Co-Advise's config: two steps in small, and its networks at full size."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.runner import Runner

from helpers.small_scale import read
from helpers.small_scale_classification import (
    CONFIGS,
    build_without_numbers,
    hook_of,
    one_step,
    read_teacher,
)
from helpers.toy import LossRecorder, Probe

PAIR = CONFIGS / "co_advise" / "civt-small_regnety-040-rednet-101_4xb256_in1k.py"


def test_both_teachers_teach_a_classifier_each(tmp_path: Path) -> None:
    config = read(PAIR)
    one_step(config, tmp_path, name="co-advise")
    # Mixed labels are the head's alone.
    config.train_cfg.max_epochs, config.param_scheduler = 2, None
    runner = Runner.from_cfg(config)
    recorder, before = LossRecorder(), {}
    runner.register_hook(recorder)
    runner.register_hook(
        Probe(before_train=lambda r: before.update({k: v.clone() for k, v in weights(r).items()}))
    )
    runner.train()
    for losses in recorder.logged:
        assert losses["distill_convolution"] > 0 and losses["distill_involution"] > 0
    still = {k for k, value in weights(runner).items() if torch.equal(value, before[k])}
    assert not [name for name in still if "head" in name or "volution" in name]


def weights(runner: Runner) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in runner.model.named_parameters()}


def test_what_is_compared_is_there_at_full_size() -> None:
    config = read(PAIR)
    student = build_without_numbers(config.model)
    hook = hook_of(config, "DistillHook")
    for name, term in hook.terms.items():
        assert term.source == name
        assert student.get_submodule(term.student).out_features == 1000
        teacher = build_without_numbers(read_teacher(hook.teacher[name]).model)
        assert teacher.get_submodule(term.teacher).out_features == 1000
