"""A user's own loss and own distiller in MMEngine's trainer keep every promise of the project's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

import helpers.own_distiller  # noqa: F401  (registers it)
from helpers.toy import (
    LossRecorder,
    Probe,
    checkpoint_of,
    differences,
    distill,
    distill_hook_of,
    toy_config,
    train,
)
from mmkd import FeatureDistiller
from mmkd.losses import Loss
from mmkd.registry import MODELS

FUSION = dict(type="Fusion", levels=[0, 1], width=4)
MEMORY = dict(type="FusionWithMemory", levels=[0, 1], num_images=16)
own_types = pytest.mark.parametrize("term", [FUSION, MEMORY], ids=["fusion", "memory"])


def run(folder: Path, teacher: dict, term: dict, *hooks: Any, **settings: Any) -> Runner:
    config = toy_config(folder, **distill(teacher, dict(own=term)), **settings)
    config.train_dataloader.dataset.flip = True
    return train(config, *hooks)


@own_types
def test_weight_0_is_plain_training(tmp_path: Path, teacher: dict, term: dict) -> None:
    plain = toy_config(tmp_path)
    plain.train_dataloader.dataset.flip = True
    expected = checkpoint_of(train(plain), "epoch_2.pth")["state_dict"]
    off = run(tmp_path, teacher, dict(term, weight=0))
    assert not differences(checkpoint_of(off, "epoch_2.pth")["state_dict"], expected)
    for name, buffer in distill_hook_of(off).distillers.named_buffers():
        assert not buffer.any(), name


@own_types
def test_all_of_it_is_trained_and_saved_beside_the_student(
    tmp_path: Path, teacher: dict, term: dict
) -> None:
    first: dict[str, Tensor] = {}

    def keep(runner: Runner) -> None:
        state = distill_hook_of(runner).distillers.state_dict()
        first.update({name: value.clone() for name, value in state.items()})

    recorder = LossRecorder()
    runner = run(tmp_path, teacher, term, Probe(before_train=keep), recorder)
    distillers = distill_hook_of(runner).distillers
    optimized = {
        id(p) for group in runner.optim_wrapper.optimizer.param_groups for p in group["params"]
    }
    assert {id(parameter) for parameter in distillers.parameters()} <= optimized
    # Both sides' projections, and the attention.
    assert {name.split(".")[1] for name, _ in distillers.named_parameters()} == {
        "student",
        "teacher",
        "attention",
    }
    assert all(not torch.equal(value, first[k]) for k, value in distillers.state_dict().items())
    assert all(each["loss_distill_own"] > 0 for each in recorder.logged)
    checkpoint = checkpoint_of(runner, "epoch_2.pth")
    assert list(checkpoint["state_dict"]) == list(runner.model.state_dict())
    assert not differences(checkpoint["mmkd"]["distillers"], dict(distillers.state_dict()))


@own_types
def test_stopped_and_resumed_equals_uninterrupted(
    tmp_path: Path, teacher: dict, term: dict
) -> None:
    term = dict(term, schedule=dict(ramp=3))
    whole = run(tmp_path, teacher, term)
    stopped = run(tmp_path, teacher, term)
    resume = dict(resume=True, load_from=str(Path(stopped.work_dir) / "epoch_1.pth"))
    resumed = run(tmp_path, teacher, term, **resume)
    keys = ("state_dict", "optimizer", "mmkd")
    ends = [
        {key: checkpoint_of(each, "epoch_2.pth")[key] for key in keys} for each in (whole, resumed)
    ]
    assert not differences(*ends)


@MODELS.register_module()
class Weighed(FeatureDistiller):
    """A distiller that adds a setting to the stock one's."""

    def __init__(self, *channels: int, more: float = 1.0, **settings: Any) -> None:
        super().__init__(*channels, **settings)
        self.more = more

    def distance(self, student: Tensor, teacher: Tensor, targets: Any = None) -> Tensor:
        return self.more * super().distance(student, teacher, targets)


def test_a_type_may_add_to_the_stock_one_s_settings(tmp_path: Path, teacher: dict) -> None:
    found = []
    for term in (dict(view="global"), dict(type="Weighed", more=3.0, view="global")):
        recorder = LossRecorder()
        run(tmp_path, teacher, term, recorder)
        found.append(recorder.logged[0]["distill_own"])
    assert found[1] == pytest.approx(3 * found[0])


@pytest.mark.parametrize("value", ["none", "each"])
def test_a_loss_that_returns_no_scalar(tmp_path: Path, teacher: dict, value: str) -> None:
    term = dict(loss=dict(type="NoScalar", value=value))
    with pytest.raises(RuntimeError, match=r"terms\.own: a distance must be a scalar tensor, got"):
        run(tmp_path, teacher, term)


@MODELS.register_module()
class NoScalar(Loss):
    def __init__(self, value: str) -> None:
        super().__init__()
        self.value = value

    def forward(self, student: Tensor, teacher: Tensor) -> Any:
        return 3.0 if self.value == "none" else (student - teacher).square().mean(dim=0)


def test_a_memory_bank_knows_its_images(tmp_path: Path, teacher: dict) -> None:
    runner = run(tmp_path, teacher, dict(MEMORY, num_images=20))
    memory = distill_hook_of(runner).distillers["own"].memory
    assert all(row.any() for row in memory[:16])
    assert not memory[16:].any()


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        (dict(FUSION, levels=[0]), None),
        (dict(type="Fusion", level=1), ("terms.own", "levels=[...]")),
        (dict(type="Fusion", levels=[0, 2]), ("terms.own.student", "level 2 was asked of 2")),
        (dict(FUSION, height=3), ("terms.own", "no key 'height'", "width")),
        (dict(FUSION, weight=-1), ("terms.own", "weight must be 0 or more, got -1")),
        (dict(type="Fusio", levels=[0, 1]), ("terms.own.type", "'Fusio'", "custom_imports")),
        (dict(type="mmkd.LogSumLoss"), ("terms.own", "must be a mmkd.distiller.Distiller")),
        (
            dict(FUSION, teacher_classifier="head"),
            ("terms.own", "teacher_classifier is given, but"),
        ),
        (dict(levels=[0, 1]), ("terms.own", "LogSumLoss takes one level")),
    ],
)
def test_what_does_not_fit(
    tmp_path: Path, teacher: dict, term: dict, parts: tuple[str, ...] | None
) -> None:
    if parts is None:
        run(tmp_path, teacher, term, **{"train_cfg.max_epochs": 1})
        return
    with pytest.raises(ValueError) as error:
        run(tmp_path, teacher, term)
    missing = [part for part in parts if part not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"


# A loss in a file of one's own --------------------------------------------------------------

OWN_LOSS = '''
from torch import Tensor
from mmkd.losses import Loss, Takes
from mmkd.registry import MODELS

@MODELS.register_module()
class {name}(Loss):
    """The mean over boxes of the squared difference inside them."""

    takes = Takes(form="maps", targets=("boxes",))

    def forward(self, student: Tensor, teacher: Tensor, *, targets) -> Tensor:
        difference = (student - teacher).square().mean(dim=1)
        height, width = difference.shape[1:]
        total = difference.sum() * 0
        for image, boxes in zip(difference, targets.boxes):
            for x1, y1, x2, y2 in boxes.corners.tolist():
                left, right = (round(x * width / targets.size[1]) for x in (x1, x2))
                top, bottom = (round(y * height / targets.size[0]) for y in (y1, y2))
                inside = image[top : max(bottom, top + 1), left : max(right, left + 1)]
                total = total + inside.mean()
        return total / max(1, sum(len(b.corners) for b in targets.boxes))
'''


def test_a_loss_of_a_file_outside_the_project(
    tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes and all, by a config's ``custom_imports`` alone."""
    from helpers.detector import detector_config, write_detector_teacher

    (tmp_path / "my_box_losses.py").write_text(OWN_LOSS.format(name="InsideBoxes"))
    monkeypatch.syspath_prepend(tmp_path)
    config = detector_config(digits, tmp_path, **{"train_cfg.max_epochs": 1})
    config.custom_imports = dict(imports=["mmkd", "my_box_losses"])
    term = dict(student="neck", teacher="neck", loss=dict(type="InsideBoxes"))
    config.merge_from_dict(distill(write_detector_teacher(tmp_path), dict(inside=term)))
    config.dump(tmp_path / "config.py")
    recorder = LossRecorder()
    train(Config.fromfile(tmp_path / "config.py"), recorder)
    assert all(each["loss_distill_inside"] > 0 for each in recorder.logged)


def test_image_indices_that_the_pipeline_leaves_out(tmp_path: Path, digits: Path) -> None:
    """MMDetection's own packs no position in the data set."""
    from helpers.detector import detector_config, write_detector_teacher

    config = detector_config(digits, tmp_path, **{"train_cfg.max_epochs": 1})
    term = dict(type="FusionWithMemory", levels=[0], student="neck", teacher="neck", num_images=12)
    config.merge_from_dict(distill(write_detector_teacher(tmp_path), dict(own=term)))
    with pytest.raises(
        ValueError, match=r"terms\.own: the data samples hold no sample_idx.*meta_k"
    ):
        train(config)
    pack = config.train_dataloader.dataset.pipeline[-1]
    assert pack.type == "PackDetInputs"
    pack.meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "sample_idx")
    runner = train(config)
    memory = distill_hook_of(runner).distillers["own"].memory
    assert all(row.any() for row in memory)


def test_a_module_that_is_no_loss_of_ours_is_given_samples(tmp_path: Path, teacher: dict) -> None:
    shapes: list[torch.Size] = []

    class Plain(nn.Module):
        def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
            shapes.append(student.shape)
            return (student - teacher).abs().mean()

    FeatureDistiller(4, 6, loss=Plain())(torch.ones(2, 4, 3, 3), torch.zeros(2, 6, 3, 3))
    assert shapes == [(18, 6)]
