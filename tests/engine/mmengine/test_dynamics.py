"""What is recorded inside a distillation, and that looking changes nothing."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from helpers.classifier_toy import (
    KD_TERM,
    STUDENT_WIDTH,
    classifier_config,
    tiny_deit,
    write_classifier,
)
from helpers.classifier_toy import VALIDATION as CLASSIFIER_VALIDATION
from helpers.classifier_toy import distill as distill_classifier
from helpers.detector import detector_config, write_detector_teacher
from helpers.toy import (
    VALIDATION,
    checkpoint_of,
    differences,
    distill,
    distill_hook_of,
    toy_config,
    train,
)
from mmkd import FeatureDistiller, dynamics
from mmkd.analysis import effective_rank, linear_cka, singular_values
from mmkd.dynamics import (
    SINGULAR_QUANTILES,
    DynamicsSettings,
    ProbeImages,
    check_blocks,
    projector_dynamics,
)
from mmkd.dynamics_file import read_matrices
from mmkd.engine.evenly import evenly
from mmkd.engine.mmengine import DynamicsHook
from mmkd.engine.mmengine.spread_images import spread_batch
from mmkd.errors import InputError
from mmkd.features import pair_as_samples
from mmkd.targets import Targets

TERMS = dict(
    deep=dict(weight=dict(share=0.4)), connector=dict(level=0, loss=dict(type="mmkd.MSELoss"))
)


def recorded(config: Config, **settings: Any) -> Config:
    """With the hook."""
    config.custom_hooks.append(
        dict(type="mmkd.DynamicsHook", **{"images": 6, "interval": 1, **settings})
    )
    return config


def rows(runner: Runner) -> list[dict[str, str]]:
    with (Path(runner.work_dir) / "dynamics.csv").open() as file:
        return list(csv.DictReader(file))


def values(runner: Runner, epoch: int, images: str, term: str) -> dict[str, float]:
    return {
        row["measure"]: float(row["value"])
        for row in rows(runner)
        if (int(row["step"]), row["images"], row["term"]) == (epoch, images, term)
    }


def end(runner: Runner) -> dict[str, Any]:
    checkpoint = checkpoint_of(runner, "epoch_2.pth")
    return {key: checkpoint[key] for key in ("state_dict", "optimizer", "mmkd")}


def test_looking_changes_nothing(tmp_path: Path, teacher: dict) -> None:
    settings = {**VALIDATION, **distill(teacher, TERMS)}
    settings["train_dataloader.dataset.flip"] = True
    looked_at = train(recorded(toy_config(tmp_path, **settings)))
    assert not differences(end(train(toy_config(tmp_path, **settings))), end(looked_at))


def test_values_are_those_of_the_saved_weights(tmp_path: Path, teacher: dict) -> None:
    runner = train(recorded(toy_config(tmp_path, **VALIDATION, **distill(teacher, TERMS))))
    found = {**values(runner, 2, "train", "deep"), **values(runner, 2, "val", "deep")}
    hook = distill_hook_of(runner)
    model = runner.model.eval()
    batch = spread_batch(runner.val_dataloader, model.data_preprocessor, 6)
    assert len(batch["inputs"]) == 6
    with torch.no_grad():
        ours = model.backbone(batch["inputs"])[-1]
        theirs = hook.teachers["teacher"].features(batch["inputs"])["backbone"][-1]
    samples = pair_as_samples(ours, theirs, "dense")
    assert found["cka"] == pytest.approx(linear_cka(*samples), rel=1e-5)
    weight = hook.distillers["deep"].projector.linear.weight
    assert found["effective_rank"] == pytest.approx(effective_rank(singular_values(weight)))
    assert set(found) == {
        "cka", "explained_variance", "effective_rank", "condition_number", "rest", "passes",
        "self_correlation", "cross_correlation", "gradient_share", "gradient_cosine",
        *SINGULAR_QUANTILES,
    }  # fmt: skip
    matrices = {
        each.measure: each.matrix
        for each in read_matrices(Path(runner.work_dir) / "dynamics.csv")
        if (each.images, each.term) == ("val", "deep")
    }
    assert {name: matrix.shape for name, matrix in matrices.items()} == dict(
        self_correlation_matrix=(8, 8), cross_correlation_matrix=(8, 12)
    )
    with np.errstate(invalid="ignore"):  # A channel that does not vary.
        expected = np.corrcoef(*(side.T.double().numpy() for side in samples))[:8, 8:]
    expected = np.nan_to_num(expected)
    assert np.allclose(matrices["cross_correlation_matrix"], expected, atol=1e-5)
    assert found["cross_correlation"] == pytest.approx((expected**2).mean() ** 0.5, rel=1e-5)
    values_of_weight = torch.linalg.svdvals(weight.double())
    assert found["singular_max"] == pytest.approx(float(values_of_weight[0]))
    assert found["singular_50"] == pytest.approx(float(values_of_weight.median()), rel=0.5)
    assert found["singular_min"] <= found["singular_25"] <= found["singular_50"]
    ours_in_training = values(runner, 2, "train", "deep")
    assert 0 < ours_in_training["gradient_share"] < 1
    assert -1 <= ours_in_training["gradient_cosine"] <= 1
    assert {int(row["step"]) for row in rows(runner)} == {1, 2}


def test_backends_are_told(tmp_path: Path, teacher: dict) -> None:
    runner = train(recorded(toy_config(tmp_path, **distill(teacher, TERMS)), interval=2))
    [file] = Path(runner.work_dir).glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    told = [line for line in lines if "dynamics/deep/cka" in line]
    assert [line["step"] for line in told] == [2]
    assert told[0]["dynamics/deep/cka"] == values(runner, 2, "train", "deep")["cka"]
    assert not any(key.startswith("dynamics/deep/val_") for key in told[0])


def test_a_resumed_run_goes_on_with_the_file(tmp_path: Path, teacher: dict) -> None:
    def make(**more: Any) -> Config:
        config = recorded(toy_config(tmp_path, **distill(teacher, TERMS), **more))
        config.work_dir = str(tmp_path / "run")
        return config

    whole = rows(train(make()))
    resumed = make(load_from=str(tmp_path / "run" / "epoch_1.pth"), resume=True)
    assert rows(train(resumed)) == whole
    # One that begins does not go on with it.
    assert {row["step"] for row in rows(train(make(**{"train_cfg.max_epochs": 1})))} == {"1"}


def test_a_classifier_s_classes_and_predictions(tmp_path: Path) -> None:
    teacher = write_classifier(tmp_path)
    terms = dict(kd=KD_TERM, feature=dict(view="global"))
    config = classifier_config(
        tmp_path, **CLASSIFIER_VALIDATION, **distill_classifier(teacher, terms)
    )
    runner = train(recorded(config))
    for images in ("train", "val"):
        assert 0 <= values(runner, 2, images, "kd")["agreement"] <= 1
        found = values(runner, 2, images, "feature")
        assert {"between_classes", "teacher_between_classes", "cka"} <= set(found)
        assert all(math.isfinite(value) for value in found.values())


def test_the_distance_of_classifiers_of_one_shape(tmp_path: Path) -> None:
    for width, is_there in ((STUDENT_WIDTH, True), (STUDENT_WIDTH + 1, False)):
        teacher = write_classifier(tmp_path, name=f"teacher{width}", width=width)
        config = classifier_config(tmp_path, **distill_classifier(teacher, dict(kd=KD_TERM)))
        runner = train(recorded(config))
        found = values(runner, 2, "train", "kd")
        assert ("classifier_distance" in found) == is_there
        if is_there:
            theirs = torch.load(teacher["checkpoint"])["state_dict"]["head.fc.weight"]
            expected = (runner.model.head.fc.weight - theirs).norm()
            assert found["classifier_distance"] == pytest.approx(float(expected), rel=1e-5)


def test_the_equivariance_of_a_transformer_s_layers(tmp_path: Path) -> None:
    teacher = write_classifier(tmp_path)
    term = dict(student="backbone.layers.0", student_extra_tokens=2, view="global")
    config = classifier_config(
        tmp_path,
        tiny_deit(),
        **CLASSIFIER_VALIDATION,
        **distill_classifier(teacher, dict(feature=term)),
    )
    blocks = ["backbone.patch_embed.projection", "backbone.layers.0"]
    runner = train(recorded(config, blocks=blocks))
    model = runner.model.eval()
    images = spread_batch(runner.val_dataloader, model.data_preprocessor, 6)["inputs"]
    seen: list[torch.Tensor] = []
    handle = model.backbone.layers[0].register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        # Patches of four pixels; a class and a distillation token.
        for inputs in (images, images.roll((4, 4), dims=(2, 3))):
            model.backbone(inputs)
    handle.remove()
    before, after = (tokens[:, 2:].unflatten(1, (2, 2)) for tokens in seen)
    moved = before.roll((1, 1), dims=(1, 2))
    expected = (after - moved).square().mean() / before.var(dim=(0, 1, 2), correction=0).mean()
    found = values(runner, 2, "val", "backbone.layers.0")
    assert found == {"equivariance": pytest.approx(float(expected), rel=1e-4)}
    assert expected > 1e-3
    # A convolution of patches lets whole patches pass.
    assert values(runner, 2, "val", blocks[0])["equivariance"] < 1e-9


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (["backbone.layer.0"], r"DynamicsHook blocks: .*no module 'backbone\.layer\.0'"),
        (["backbone"], r"DynamicsHook blocks: 'backbone' returns no tokens"),
        ("backbone", r"DynamicsHook blocks: expected a list of the student's modules"),
    ],
)
def test_blocks_that_do_not_fit(tmp_path: Path, teacher: dict, blocks: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(recorded(toy_config(tmp_path, **distill(teacher, TERMS)), blocks=blocks))


def test_channels_last_are_told_apart() -> None:
    class Last(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.movedim(1, -1)[:, ::4, ::4]

    student = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, padding=1), Last())
    probe = ProbeImages(torch.rand(2, 3, 32, 32), Targets((32, 32)), student)
    distillation: Any = SimpleNamespace(student=student)
    with pytest.raises(InputError, match=r"hook blocks: .* has its channels last"):
        check_blocks("hook", distillation, [probe], ["1"])
    # Of every size that will be looked at.
    check_blocks("hook", distillation, [probe], ["0"])
    pooled = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2, stride=2))
    odd = ProbeImages(torch.rand(2, 3, 33, 32), Targets((33, 32)), pooled)
    even = odd._replace(inputs=torch.rand(2, 3, 32, 32))
    distillation.student = pooled
    with pytest.raises(InputError, match=r"16 x 16 cells, of which images of 33 x 32 pixels"):
        check_blocks("hook", distillation, [even, odd], ["0"])


def test_several_classes_an_image_have_no_cosine_between_classes() -> None:
    targets = Targets((8, 8), labels=torch.tensor([0, 1, 1]))
    assert dynamics._of_classes(torch.rand(2, 4), torch.rand(2, 4), targets) == {}


def test_a_detector_s_places(tmp_path: Path, digits: Path) -> None:
    terms = dict(maps=dict(stride="all", weight=dict(share=0.3)))
    config = detector_config(digits, tmp_path, **distill(write_detector_teacher(tmp_path), terms))
    config.train_cfg.max_epochs = 1
    runner = train(recorded(config))
    found = values(runner, 1, "train", rows(runner)[0]["term"])
    assert {"cosine_inside", "cosine_outside"} <= set(found)
    assert all(-1 <= found[name] <= 1 for name in found if name.startswith("cosine_"))
    held_out = values(runner, 1, "val", rows(runner)[0]["term"])
    assert {"cosine_inside", "cosine_outside"} <= set(held_out)
    hook = next(each for each in runner.hooks if isinstance(each, DynamicsHook))
    data = runner.val_dataloader.dataset
    samples = [data[place]["data_samples"] for place in evenly(6, len(data))]
    for sample, boxes in zip(samples, hook.probes["val"].targets.boxes, strict=True):
        shown = sample.gt_instances
        scale = torch.tensor([*sample.scale_factor, *sample.scale_factor])
        drawn = getattr(shown.bboxes, "tensor", shown.bboxes)
        assert torch.allclose(boxes.corners, drawn * scale, atol=1e-3)
        assert boxes.classes.tolist() == shown.labels.tolist()


@pytest.mark.parametrize("loss", ["ATLoss", "SPLoss", "ReviewKDLoss"])
def test_losses_in_their_own_widths_and_of_several_levels(
    tmp_path: Path, digits: Path, loss: str
) -> None:
    """They end no training, and tell what can be told."""
    several = loss == "ReviewKDLoss"
    settings = (
        dict(levels=[0], loss=dict(type=f"mmkd.{loss}", inner=8))
        if several
        else dict(level=0, loss=dict(type=f"mmkd.{loss}"))
    )
    terms = dict(one=dict(**settings, weight=0.01))
    config = detector_config(digits, tmp_path, **distill(write_detector_teacher(tmp_path), terms))
    config.train_cfg.max_epochs = 1
    found = values(train(recorded(config)), 1, "train", "one")
    assert ("cka" in found) != several
    assert "cosine_inside" not in found


def test_a_loop_of_iterations(tmp_path: Path, teacher: dict) -> None:
    def make(**hook: Any) -> Config:
        config = recorded(toy_config(tmp_path, **distill(teacher, TERMS)), **hook)
        config.train_dataloader.sampler = dict(type="InfiniteSampler")
        config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=6)
        return config

    runner = train(make(by_epoch=False, interval=2))
    assert {int(row["step"]) for row in rows(runner)} == {2, 4, 6}
    with pytest.raises(InputError, match=r"DynamicsHook by_epoch: .*IterBased.* by_epoch=False"):
        train(make())


def test_iterations_of_a_loop_of_epochs(tmp_path: Path, teacher: dict) -> None:
    """Two epochs of four; a resumed one goes on with the file, and the training is as without."""

    def trained(folder: str, max_epochs: int = 2, **changes: Any) -> Runner:
        config = recorded(
            toy_config(tmp_path / folder, **distill(teacher, TERMS)), by_epoch=False, interval=2
        )
        config.train_cfg.max_epochs = max_epochs
        config.merge_from_dict(changes)
        return train(config)

    whole = trained("whole")
    assert {int(row["step"]) for row in rows(whole)} == {2, 4, 6, 8}
    trained("stopped", max_epochs=1)
    resumed = trained("stopped", resume=True)
    assert rows(resumed) == rows(whole)
    other = train(toy_config(tmp_path / "other", **distill(teacher, TERMS)))
    assert not differences(whole.model.state_dict(), other.model.state_dict())


def test_the_default_interval_and_the_end(tmp_path: Path, teacher: dict) -> None:
    """Of few images seldom, and at the end in any case."""
    config = recorded(toy_config(tmp_path, **distill(teacher, TERMS)), interval=None)
    runner = train(config)
    assert {int(row["step"]) for row in rows(runner)} == {2}
    settings = DynamicsSettings()
    assert [settings.every(images) for images in (118_287, 1600, 800, 205, 64)] == [1, 1, 2, 8, 25]
    assert settings.every(8, known=8) == 100


def test_a_projector_of_one_s_own(tmp_path: Path, teacher: dict) -> None:
    terms = dict(own=dict(projector=torch.nn.Linear(8, 12)))
    config = recorded(toy_config(tmp_path, **distill(teacher, terms)))
    assert "cka" in values(train(config), 2, "train", "own")


def test_weights_that_are_not_finite() -> None:
    distiller = FeatureDistiller(4, 6)
    assert "effective_rank" in projector_dynamics(distiller)
    with torch.no_grad():
        distiller.projector.linear.weight[0, 0] = math.nan
    assert projector_dynamics(distiller) == {}


def test_too_little_memory_to_record(
    tmp_path: Path, teacher: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(dynamics, "dynamics_of", fail)
    found = values(
        train(recorded(toy_config(tmp_path, **distill(teacher, TERMS)))), 2, "train", "deep"
    )
    assert "gradient_share" in found and "cka" not in found


def test_what_it_refuses(tmp_path: Path) -> None:
    for settings in (dict(images=0), dict(interval=1.5)):
        [name] = settings
        config = toy_config(tmp_path, custom_hooks=[dict(type="mmkd.DynamicsHook", **settings)])
        with pytest.raises(InputError, match=f"DynamicsHook {name}: expected a number from 1 on"):
            train(config)
    with pytest.raises(InputError, match="custom_hooks holds no DistillHook"):
        train(toy_config(tmp_path, custom_hooks=[dict(type="mmkd.DynamicsHook")]))


def test_images_are_from_all_over_the_set(tmp_path: Path) -> None:
    """A set may be sorted by class."""
    runner = train(classifier_config(tmp_path))
    batch = spread_batch(runner.train_dataloader, runner.model.data_preprocessor, 4)
    assert [int(sample.sample_idx) for sample in batch["data_samples"]] == [0, 4, 8, 12]


def test_a_training_that_stops_early_is_recorded_to_its_end(tmp_path: Path, teacher: dict) -> None:
    settings = {**VALIDATION, "train_cfg.max_epochs": 9, **distill(teacher, TERMS)}
    config = recorded(toy_config(tmp_path, **settings), interval=4)
    config.custom_hooks.append(
        dict(
            type="EarlyStoppingHook", monitor="accuracy", rule="greater", patience=1, min_delta=2.0
        )
    )
    runner = train(config)
    assert runner.epoch == 2
    assert {int(row["step"]) for row in rows(runner)} == {2}
