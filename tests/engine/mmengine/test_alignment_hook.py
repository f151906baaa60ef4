"""ClassifierAlignmentHook: what it logs, and that it only looks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import Dataset

from helpers.toy import (
    VALIDATION,
    LossRecorder,
    Probe,
    ToyModel,
    checkpoint_of,
    differences,
    distill,
    toy_config,
    train,
)
from mmkd.checkpoint import read_weights
from mmkd.engine.mmengine.alignment_hook import ClassifierAlignmentHook

EPOCHS = 5


@MODELS.register_module()
class ToyConvClassifier(ToyModel):
    """Its head carries a 1x1 convolution beside the classifier."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv_classifier = nn.Conv2d(8, 3, 1)


class ClassifierRecorder(Hook):
    """The student's classifier after every epoch, as a float64 array."""

    def __init__(self, path: str = "head") -> None:
        self.path = path
        self.weights: list[np.ndarray] = []

    def after_train_epoch(self, runner: Runner) -> None:
        weight = runner.model.get_submodule(self.path).weight
        self.weights.append(weight.detach().double().numpy().copy())


def alignment(checkpoint: str, **settings: Any) -> dict[str, Any]:
    """The hook's config for toy models."""
    return dict(type="mmkd.ClassifierAlignmentHook", checkpoint=checkpoint) | (
        dict(student="head", teacher="head") | settings
    )


def run_with(
    tmp_path: Path, *hooks: Hook, settings: dict[str, Any], **overrides: Any
) -> tuple[Runner, list[dict[str, float]]]:
    """Trains with the hook; the entries that it wrote to the JSON log."""
    config = toy_config(tmp_path, **{"train_cfg.max_epochs": EPOCHS, **overrides})
    # First, so that the order of the hooks is their own doing.
    config.custom_hooks = [settings, *(config.get("custom_hooks") or [])]
    runner = train(config, *hooks)
    return runner, entries_of(runner)


def entries_of(runner: Runner) -> list[dict[str, float]]:
    (file,) = Path(runner.log_dir).glob("vis_data/scalars.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = [json.loads(line, parse_constant=refuse) for line in file.read_text().splitlines()]
    return [line for line in lines if "classifier_distance" in line]


def correlation(x: list[float], y: list[float]) -> float:
    """Pearson's r as the mean product of standard scores."""
    a, b = np.array(x), np.array(y)
    return float(np.mean((a - a.mean()) / a.std() * ((b - b.mean()) / b.std())))


# Values


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("begin", [0, 1])
def test_values(tmp_path: Path, teacher: dict, distilled: bool, begin: int) -> None:
    losses, classifiers = LossRecorder(), ClassifierRecorder()
    runner, entries = run_with(
        tmp_path,
        losses,
        classifiers,
        settings=alignment(teacher["checkpoint"], begin=begin),
        **(distill(teacher, dict(deep=dict(weight=0.5))) if distilled else {}),
        **VALIDATION,
    )
    target = torch.load(teacher["checkpoint"])["state_dict"]["head.weight"].double().numpy()
    distances = [float(np.sqrt(((target - w) ** 2).sum())) for w in classifiers.weights]
    objectives = [
        float(np.mean([logged["loss"] for logged in losses.logged[4 * e : 4 * e + 4]]))
        for e in range(EPOCHS)
    ]
    if distilled:
        assert losses.logged[0]["loss"] > losses.logged[0]["loss_distill_deep"] > 0
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5]
    for epoch, entry in enumerate(entries):
        assert entry["classifier_distance"] == pytest.approx(distances[epoch], rel=1e-12)
        assert entry["mean_objective"] == pytest.approx(objectives[epoch], rel=1e-12)
        if epoch + 1 - begin < 3:
            assert "classifier_correlation" not in entry
            continue
        expected = correlation(distances[begin : epoch + 1], objectives[begin : epoch + 1])
        assert entry["classifier_correlation"] == pytest.approx(expected, abs=1e-9)
    state = checkpoint_of(runner, "epoch_5.pth")["mmkd_alignment"]
    assert state["epoch"] == list(range(EPOCHS))
    assert state["distance"] == pytest.approx(distances, rel=1e-12)
    assert state["objective"] == pytest.approx(objectives, rel=1e-12)


def test_the_terminal_shows_an_epoch(
    tmp_path: Path, teacher: dict, capfd: pytest.CaptureFixture[str]
) -> None:
    _, entries = run_with(tmp_path, settings=alignment(teacher["checkpoint"]), log_level="INFO")
    text = "".join(capfd.readouterr())
    for epoch, entry in enumerate(entries, start=1):
        line = (
            f"Epoch(alignment) [{epoch}]  classifier_distance: {entry['classifier_distance']:.4f}"
        )
        assert line in text


def test_a_teachers_own_classifier_is_at_distance_0(tmp_path: Path, teacher: dict) -> None:
    """A frozen copy of the teacher's classifier stays at 0, and nothing correlates with that."""

    def inherit(runner: Runner) -> None:
        weight = runner.model.head.weight
        weight.data = torch.load(teacher["checkpoint"])["state_dict"]["head.weight"]
        weight.requires_grad_(False)

    _, entries = run_with(
        tmp_path, Probe(before_train=inherit), settings=alignment(teacher["checkpoint"])
    )
    assert [entry["classifier_distance"] for entry in entries] == [0.0] * EPOCHS
    assert not any("classifier_correlation" in entry for entry in entries)


def test_safetensors(tmp_path: Path, teacher: dict) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "teacher.safetensors"
    save_file(torch.load(teacher["checkpoint"])["state_dict"], file)
    one = {"train_cfg.max_epochs": 1}
    _, found = run_with(tmp_path, settings=alignment(str(file)), **one)
    _, expected = run_with(tmp_path, settings=alignment(teacher["checkpoint"]), **one)
    assert found == expected


# It only looks


@pytest.mark.parametrize("distilled", [False, True])
def test_a_run_with_the_hook_has_the_bits_of_one_without(
    tmp_path: Path, teacher: dict, distilled: bool
) -> None:
    settings: dict[str, Any] = {**VALIDATION, "train_dataloader.dataset.flip": True}
    if distilled:
        settings |= distill(teacher)
    plain_losses, losses = LossRecorder(), LossRecorder()
    plain = train(toy_config(tmp_path, **settings, **{"train_cfg.max_epochs": 3}), plain_losses)
    state = torch.get_rng_state()
    looked_at, _ = run_with(
        tmp_path,
        losses,
        settings=alignment(teacher["checkpoint"]),
        **settings,
        **{"train_cfg.max_epochs": 3},
    )
    assert torch.equal(torch.get_rng_state(), state)
    times = {"teacher_time_share"}
    for with_hook, without in zip(losses.logged, plain_losses.logged, strict=True):
        assert not differences(
            *({k: v for k, v in x.items() if k not in times} for x in (with_hook, without))
        )
    ends = [checkpoint_of(runner, "epoch_3.pth") for runner in (looked_at, plain)]
    assert "mmkd_alignment" in ends[0]
    ignored = ("meta", "message_hub", "mmkd_alignment")
    assert not differences(*({k: v for k, v in end.items() if k not in ignored} for end in ends))


def test_the_checkpoint_stays_readable(tmp_path: Path, teacher: dict) -> None:
    runner, _ = run_with(tmp_path, settings=alignment(teacher["checkpoint"]))
    weights = read_weights(Path(runner.work_dir) / "epoch_5.pth").weights
    assert not differences(weights, dict(runner.model.state_dict()))
    state = checkpoint_of(runner, "epoch_5.pth")["mmkd_alignment"]
    file = tmp_path / "series.pth"
    torch.save(state, file)
    assert torch.load(file, weights_only=True) == state


def test_nothing_is_read_outside_training(tmp_path: Path, teacher: dict) -> None:
    runner = train(toy_config(tmp_path, **{"train_cfg.max_epochs": 1}))
    config = toy_config(
        tmp_path,
        custom_hooks=[alignment("nowhere.pth")],
        load_from=str(Path(runner.work_dir) / "epoch_1.pth"),
        test_dataloader=VALIDATION["val_dataloader"],
        test_cfg=dict(type="TestLoop"),
        test_evaluator=VALIDATION["val_evaluator"],
        **VALIDATION,
    )
    assert "accuracy" in Runner.from_cfg(config).test()
    config.experiment_name = config.visualizer.name = f"{config.experiment_name}_val"
    assert "accuracy" in Runner.from_cfg(config).val()


def test_nothing_is_read_after_training(tmp_path: Path, teacher: dict) -> None:
    """A Runner that has trained still holds its optimizer when it tests."""
    file = tmp_path / "teacher.pth"
    file.write_bytes(Path(teacher["checkpoint"]).read_bytes())
    runner, _ = run_with(
        tmp_path,
        settings=alignment(str(file)),
        test_dataloader=VALIDATION["val_dataloader"],
        test_cfg=dict(type="TestLoop"),
        test_evaluator=VALIDATION["val_evaluator"],
        **{"train_cfg.max_epochs": 1},
    )
    file.unlink()
    assert "accuracy" in runner.test()
    assert len(entries_of(runner)) == 1


# Resume


@pytest.mark.parametrize("epoch", [1, 3])
def test_resume_goes_on_with_the_series(tmp_path: Path, teacher: dict, epoch: int) -> None:
    settings = alignment(teacher["checkpoint"], begin=1)
    other = distill(teacher)
    whole, entries = run_with(tmp_path, settings=settings, **other)
    resumed, rest = run_with(
        tmp_path,
        settings=settings,
        **other,
        load_from=str(Path(whole.work_dir) / f"epoch_{epoch}.pth"),
        resume=True,
    )
    assert rest == entries[epoch:]
    ends = [checkpoint_of(runner, "epoch_5.pth")["mmkd_alignment"] for runner in (whole, resumed)]
    assert ends[0] == ends[1]


def test_resume_within_an_epoch_repeats_it(tmp_path: Path, teacher: dict) -> None:
    """MMEngine starts the epoch again, so its mean begins again too."""
    settings = alignment(teacher["checkpoint"])
    checkpoints = {"default_hooks.checkpoint": dict(interval=1, by_epoch=False, max_keep_ckpts=-1)}
    whole, entries = run_with(tmp_path, settings=settings, **checkpoints)
    losses = LossRecorder()
    resumed, rest = run_with(
        tmp_path,
        losses,
        settings=settings,
        **checkpoints,
        load_from=str(Path(whole.work_dir) / "iter_10.pth"),
        resume=True,
    )
    assert [entry["step"] for entry in rest] == [3, 4, 5]
    first = [logged["loss"] for logged in losses.logged[:4]]
    assert rest[0]["mean_objective"] == pytest.approx(float(np.mean(first)), rel=1e-12)
    last = sorted(Path(resumed.work_dir).glob("iter_*.pth"), key=os.path.getmtime)[-1]
    state = torch.load(last, weights_only=False)["mmkd_alignment"]
    # Saved after the last iteration, before the epoch ended.
    assert state["epoch"] == [0, 1, 2, 3]
    assert state["distance"][:2] == [entry["classifier_distance"] for entry in entries[:2]]


def test_a_checkpoint_that_only_initialises_brings_no_series(tmp_path: Path, teacher: dict) -> None:
    settings = alignment(teacher["checkpoint"])
    whole, _ = run_with(tmp_path, settings=settings)
    again, entries = run_with(
        tmp_path, settings=settings, load_from=str(Path(whole.work_dir) / "epoch_3.pth")
    )
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4, 5]
    assert checkpoint_of(again, "epoch_5.pth")["mmkd_alignment"]["epoch"] == [0, 1, 2, 3, 4]


def test_resume_from_a_run_without_the_hook(tmp_path: Path, teacher: dict) -> None:
    plain = train(toy_config(tmp_path, **{"train_cfg.max_epochs": 2}))
    resume = dict(load_from=str(Path(plain.work_dir) / "epoch_2.pth"), resume=True)
    with pytest.raises(ValueError, match=r"of epoch 2, was written without the hook.*set begin=2"):
        run_with(tmp_path, settings=alignment(teacher["checkpoint"], begin=1), **resume)
    settings = alignment(teacher["checkpoint"], begin=2)
    runner, entries = run_with(tmp_path, settings=settings, **resume)
    assert [entry["step"] for entry in entries] == [3, 4, 5]
    state = checkpoint_of(runner, "epoch_5.pth")["mmkd_alignment"]
    assert state["epoch"] == [2, 3, 4]
    expected = correlation(state["distance"], state["objective"])
    assert entries[-1]["classifier_correlation"] == pytest.approx(expected, abs=1e-9)


# Errors


def _altered(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path, str], str]:
    def write(folder: Path, checkpoint: str) -> str:
        weights = torch.load(checkpoint)["state_dict"]
        change(weights)
        torch.save(weights, folder / "altered.pth")
        return str(folder / "altered.pth")

    return write


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (
            _altered(lambda w: w.update({"head.weight": torch.zeros(5, 8)})),
            r"Hook teacher: the classifier has 5 classes, expected the student's 3.*student's cla",
        ),
        (
            _altered(lambda w: w.update({"head.weight": torch.zeros(3, 12)})),
            r"Hook teacher: the classifier has 12 channels, expected the student's 8.*penultimate",
        ),
        (
            _altered(lambda w: w.update({"head.weight": torch.zeros(3, 8, 1, 1)})),
            r"Hook teacher: the weight has shape \[3, 8, 1, 1\], expected a linear",
        ),
        (
            _altered(lambda w: w.update({"head.fc.weight": w.pop("head.weight")})),
            r"altered.pth holds no 'head.weight'; .* head.fc.weight come close: name the class",
        ),
        (
            _altered(lambda w: w.pop("head.weight")),
            r"altered.pth holds no 'head.weight': name the classifier's module",
        ),
    ],
)
def test_teachers_that_do_not_fit(
    tmp_path: Path, teacher: dict, write: Callable[[Path, str], str], text: str
) -> None:
    checkpoint = write(tmp_path, teacher["checkpoint"])
    with pytest.raises(ValueError, match=text):
        run_with(tmp_path, settings=alignment(checkpoint))


@pytest.mark.parametrize(
    ("student", "text"),
    [
        ("head.fc", r"Hook student: .*has no module 'head.fc'. Close matches: head"),
        ("conv_classifier", r"Conv2d whose weight is of shape \[3, 8, 1, 1\], expected a linear"),
        ("backbone", r"'backbone' is a ToyBackbone whose weight is missing, expected a linear"),
    ],
)
def test_students_that_do_not_fit(tmp_path: Path, teacher: dict, student: str, text: str) -> None:
    settings = alignment(teacher["checkpoint"], student=student)
    with pytest.raises(ValueError, match=text):
        run_with(tmp_path, settings=settings, **{"model.type": "ToyConvClassifier"})


def test_missing_and_unsafe_checkpoints(tmp_path: Path, teacher: dict) -> None:
    with pytest.raises(FileNotFoundError, match=r"Hook checkpoint: no such file: nowhere.pth"):
        run_with(tmp_path, settings=alignment("nowhere.pth"))
    file = tmp_path / "unsafe.pth"
    state = torch.load(teacher["checkpoint"])["state_dict"]
    torch.save(dict(state_dict=state, rate=Fraction(1, 2)), file)
    one = {"train_cfg.max_epochs": 1}
    with pytest.raises(ValueError, match=r"Hook checkpoint: .*allow_pickle=True beside"):
        run_with(tmp_path, settings=alignment(str(file)), **one)
    _, entries = run_with(tmp_path, settings=alignment(str(file), allow_pickle=True), **one)
    assert len(entries) == 1


@pytest.mark.parametrize("begin", [-1, 1.5, "120"])
def test_begin(begin: Any) -> None:
    with pytest.raises(ValueError, match="Hook begin: expected a number of epochs, 0 or more"):
        ClassifierAlignmentHook("teacher.pth", begin=begin)


def test_a_training_of_iterations(tmp_path: Path, teacher: dict) -> None:
    config = toy_config(tmp_path, custom_hooks=[alignment(teacher["checkpoint"])])
    config.train_dataloader.sampler = dict(type="InfiniteSampler")
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2)
    with pytest.raises(ValueError, match=r"train_cfg is a IterBasedTrainLoop.*compares epochs"):
        Runner.from_cfg(config).train()


def test_two_hooks(tmp_path: Path, teacher: dict) -> None:
    hook = alignment(teacher["checkpoint"])
    with pytest.raises(ValueError, match="custom_hooks holds several, expected one"):
        run_with(tmp_path, settings=hook, custom_hooks=[hook])


def test_a_model_that_bypasses_its_forward(tmp_path: Path, teacher: dict) -> None:
    settings = alignment(teacher["checkpoint"])
    with pytest.raises(RuntimeError, match=r"without a call of its forward\(mode='loss'\)"):
        run_with(tmp_path, settings=settings, **{"model.type": "ToyBypass"})


# A classifier of MMPretrain's


@DATASETS.register_module()
class ToyClassification(Dataset):
    """Noise images whose brightest channel is their label, as MMPretrain packs them."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 180, (3, 16, 16), generator=generator)
        image[index % 3] += 75
        sample = DataSample().set_gt_label(index % 3)
        return dict(inputs=image.to(torch.uint8), data_samples=sample)


def test_an_image_classifier(tmp_path: Path) -> None:
    """Default paths are those of MMPretrain's LinearClsHead; KD joins the objective."""
    model = dict(
        type="mmpretrain.ImageClassifier",
        data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
        backbone=dict(type="ResNet_CIFAR", depth=18, stem_channels=2, base_channels=2),
        neck=dict(type="GlobalAveragePooling"),
        head=dict(
            type="LinearClsHead", num_classes=3, in_channels=16, loss=dict(type="CrossEntropyLoss")
        ),
    )
    Config(dict(model=model, default_scope="mmpretrain")).dump(tmp_path / "teacher.py")
    with torch.random.fork_rng(), DefaultScope.overwrite_default_scope("mmpretrain"):
        torch.manual_seed(7)
        state = MODELS.build(model).state_dict()
    torch.save(dict(state_dict=state), tmp_path / "teacher.pth")
    teacher = dict(config=str(tmp_path / "teacher.py"), checkpoint=str(tmp_path / "teacher.pth"))
    kd = dict(student="head.fc", teacher="head.fc", loss=dict(type="mmkd.KDLoss"), weight=0.9)
    losses, classifiers = LossRecorder(), ClassifierRecorder("head.fc")
    _, entries = run_with(
        tmp_path,
        losses,
        classifiers,
        settings=dict(type="mmkd.ClassifierAlignmentHook", checkpoint=teacher["checkpoint"]),
        default_scope="mmpretrain",
        model=model,
        train_dataloader=dict(dataset=dict(type="ToyClassification", _scope_="mmengine")),
        **distill(teacher, dict(kd=kd)),
        **{"train_cfg.max_epochs": 3},
    )
    target = state["head.fc.weight"].double().numpy()
    distances = [float(np.linalg.norm(target - weight)) for weight in classifiers.weights]
    assert [entry["classifier_distance"] for entry in entries] == pytest.approx(distances)
    # What MMPretrain logs as 'loss' is its head's alone.
    totals = [logged["loss"] + logged["loss_distill_kd"] for logged in losses.logged]
    assert all(logged["loss_distill_kd"] > 0 for logged in losses.logged)
    means = np.mean(np.reshape(totals, (3, 4)), axis=1).tolist()
    assert [entry["mean_objective"] for entry in entries] == pytest.approx(means, rel=1e-5)
    assert entries[-1]["classifier_correlation"] == pytest.approx(
        correlation(distances, means), abs=1e-4
    )
