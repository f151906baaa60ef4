"""Losses on maps at Faster R-CNN's neck, held to their definitions in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner
from torch import Tensor, nn

from helpers.detector import detector_config, write_detector_teacher
from helpers.loss_references import cwd_by_loops, pkd_by_loops
from helpers.toy import LossRecorder, Probe, distill, distill_hook_of, train

BY_LOOPS = dict(PKDLoss=pkd_by_loops, CWDLoss=cwd_by_loops)


class Watch:
    """The neck's outputs on both sides, and the projectors, iteration by iteration."""

    def __init__(self) -> None:
        self.student: list[tuple[Tensor, ...]] = []
        self.teacher: list[tuple[Tensor, ...]] = []
        self.projectors: list[dict[str, Tensor]] = []

    def start(self, runner: Runner) -> None:
        hook = distill_hook_of(runner)
        self._distillers = hook.distillers
        teacher = hook.teachers["teacher"].model
        for found, model in ((self.student, runner.model), (self.teacher, teacher)):
            # Before the tap's own hook, which ends the teacher's forward pass.
            model.neck.register_forward_hook(partial(self._keep, found, model), prepend=True)

    @staticmethod
    def _keep(found: list, model: nn.Module, neck: nn.Module, args: Any, output: Any) -> None:
        # Not in a validation.
        if neck.training or not any(p.requires_grad for p in model.parameters()):
            found.append(tuple(each.detach() for each in output))

    def before(self, runner: Runner) -> None:
        state = self._distillers.state_dict()
        self.projectors.append({name: value.clone() for name, value in state.items()})


@pytest.mark.parametrize("loss", BY_LOOPS)
def test_on_every_level(tmp_path: Path, digits: Path, loss: str) -> None:
    reference: Callable[[Tensor, Tensor], float] = BY_LOOPS[loss]
    term = dict(student="neck", teacher="neck", level=[0, 1], loss=dict(type=f"mmkd.{loss}"))
    watch, recorder = Watch(), LossRecorder()
    probe = Probe(before_train=watch.start, before_train_iter=watch.before)
    config = detector_config(digits, tmp_path, **{"train_cfg.max_epochs": 1})
    # Two levels: the second is pooled from the first.
    config.model.neck.num_outs = 2
    config.model.rpn_head.anchor_generator.strides = [8, 16]
    config.model.rpn_head.anchor_generator.base_sizes = [16, 16]
    teacher = write_detector_teacher(tmp_path)
    wide = dict(teacher, config=str(two_levels(Path(teacher["config"]), tmp_path)))
    config.merge_from_dict(distill(wide, dict(p=dict(term, weight=2.0))))
    train(config, probe, recorder)
    assert len(recorder.logged) == len(watch.student) == len(watch.teacher) == 3
    for index, logged in enumerate(recorder.logged):
        for level in range(2):
            name = f"p_{level}"
            weight = watch.projectors[index][f"{name}.projector.linear.weight"].double()
            bias = watch.projectors[index][f"{name}.projector.linear.bias"].double()
            ours = watch.student[index][level].double()
            projected = torch.einsum("nchw,kc->nkhw", ours, weight) + bias.view(1, -1, 1, 1)
            expected = reference(projected, watch.teacher[index][level])
            assert logged[f"distill_{name}"] == pytest.approx(expected, rel=1e-4)
            assert logged[f"loss_distill_{name}"] == pytest.approx(2 * expected, rel=1e-4)


def two_levels(config: Path, folder: Path) -> Path:
    """The teacher's config with a second level like the student's."""
    file = folder / "two_levels.py"
    file.write_text(
        f"_base_ = {str(config)!r}\n"
        "model = dict(neck=dict(num_outs=2), rpn_head=dict(anchor_generator=dict(\n"
        "    strides=[8, 16], base_sizes=[16, 16])))\n"
    )
    return file


def test_equal_widths_need_no_projector(tmp_path: Path, digits: Path) -> None:
    """As published, PKD compares necks of one width as they are."""
    from helpers.detector import STUDENT_CONFIG

    config = detector_config(digits, tmp_path, **{"train_cfg.max_epochs": 1})
    runner = Runner.from_cfg(config)
    file = tmp_path / "twin.pth"
    torch.save(dict(state_dict=runner.model.state_dict()), file)
    term = dict(student="neck", teacher="neck", loss=dict(type="mmkd.PKDLoss"), weight=6.0)
    twin = dict(config=str(STUDENT_CONFIG), checkpoint=str(file))
    config.merge_from_dict(distill(twin, dict(pkd=term)))
    recorder = LossRecorder()
    config.experiment_name = config.visualizer.name = "twins"
    config.randomness = dict(seed=5)
    trained = train(config, recorder)
    assert list(distill_hook_of(trained).distillers.parameters()) == []
    assert all(0 < each["distill_pkd"] < 2 for each in recorder.logged)
