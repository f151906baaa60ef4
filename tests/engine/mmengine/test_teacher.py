"""The teacher stays as it was, runs no further than needed, and is rarely needed at all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from helpers.detector import STUDENT_CONFIG, detector_config, write_detector_teacher
from helpers.toy import (
    VALIDATION,
    Probe,
    checkpoint_of,
    differences,
    distill,
    distill_hook_of,
    toy_config,
    train,
    write_teacher,
)
from mmkd import DistillHook
from mmkd.engine.input_conversion import ImageFormat
from mmkd.engine.mmengine.teacher import MMTeacher
from mmkd.terms import Term


class Calls:
    """Counts the calls of every module of the teacher during training."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.probe = Probe(before_train=self.count, after_train_iter=self.check)

    def count(self, runner: Runner) -> None:
        (self.teacher,) = distill_hook_of(runner).teachers.values()
        for name, module in self.teacher.model.named_modules():
            module.register_forward_pre_hook(
                lambda module, args, name=name: self.counts.update([name])
            )

    def check(self, runner: Runner) -> None:
        assert not any(module.training for module in self.teacher.model.modules())
        assert all(p.grad is None for p in self.teacher.model.parameters())


def tops(counts: Counter[str]) -> set[str]:
    return {name.partition(".")[0] for name in counts if name}


def test_it_ends_as_it_began(tmp_path: Path, teacher: dict) -> None:
    calls = Calls()
    runner = train(toy_config(tmp_path, **VALIDATION, **distill(teacher)), calls.probe)
    file = torch.load(teacher["checkpoint"])
    assert not differences(file["state_dict"], calls.teacher.model.state_dict())
    assert not any(p.requires_grad for p in calls.teacher.model.parameters())
    assert tops(calls.counts) == {"backbone"}
    assert calls.counts["backbone"] == runner.iter == 8


def test_a_tap_half_way_down_the_backbone(tmp_path: Path, teacher: dict) -> None:
    calls = Calls()
    terms = dict(early=dict(student="backbone.conv2", teacher="backbone.bn1"))
    train(toy_config(tmp_path, **distill(teacher, terms)), calls.probe)
    # The root is entered, not left.
    assert set(calls.counts) == {"", "backbone", "backbone.conv1", "backbone.bn1"}


def test_a_tap_on_the_neck(tmp_path: Path, teacher: dict) -> None:
    calls = Calls()
    terms = dict(backbone=dict(), neck=dict(student="neck", teacher="neck"))
    train(toy_config(tmp_path, **distill(teacher, terms)), calls.probe)
    assert tops(calls.counts) == {"backbone", "neck"}


def test_faster_rcnn_runs_the_backbone_alone(tmp_path: Path, digits: Path) -> None:
    calls = Calls()
    teacher = write_detector_teacher(tmp_path)
    config = detector_config(digits, tmp_path, **distill(teacher), **{"train_cfg.max_epochs": 1})
    train(config, calls.probe)
    assert tops(calls.counts) == {"backbone"}
    assert calls.counts["backbone"] == 3
    file = torch.load(teacher["checkpoint"])
    assert not differences(file["state_dict"], calls.teacher.model.state_dict())


def test_a_registered_module_as_the_teacher(tmp_path: Path) -> None:
    settings = dict(type="mmdet.ResNet", depth=18, base_channels=8, stem_channels=8)
    torch.save(MODELS.build(dict(settings)).state_dict(), tmp_path / "resnet.pth")
    teacher = dict(model=settings, checkpoint=str(tmp_path / "resnet.pth"))
    terms = dict(last=dict(teacher="layer4"), first=dict(level=0, teacher="layer1"))
    for term in terms.values():
        term["teacher_level"] = -1
    runner = train(toy_config(tmp_path, **distill(teacher, terms)))
    distillers = distill_hook_of(runner).distillers
    assert distillers["last"].teacher_channels == 64
    assert distillers["first"].student_channels == 4


# Outside training -------------------------------------------------------------------------


def test_validation_and_test_need_no_teacher(tmp_path: Path) -> None:
    absent = dict(config="no/such/config.py", checkpoint="no/such/file.pth")
    settings = {
        **VALIDATION,
        **{f"test{key.removeprefix('val')}": value for key, value in VALIDATION.items()},
    }
    settings["test_cfg"] = dict(type="TestLoop")
    plain = Runner.from_cfg(toy_config(tmp_path, **settings))
    runner = Runner.from_cfg(toy_config(tmp_path, **settings, **distill(absent)))
    runner.model.load_state_dict(plain.model.state_dict())
    assert runner.val() == plain.val()
    assert runner.test() == plain.test()
    assert distill_hook_of(runner).teachers == {}
    assert hooks_of(runner.model) == []


def hooks_of(model: nn.Module) -> list[str]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return [
        name for name, module in model.named_modules() if any(getattr(module, k) for k in kinds)
    ]


def test_the_student_is_left_as_it_was_found(tmp_path: Path, teacher: dict) -> None:
    plain = train(toy_config(tmp_path, **VALIDATION))
    while_training: list[list[str]] = []
    distilled = train(
        toy_config(tmp_path, **VALIDATION, **distill(teacher)),
        Probe(after_train_iter=lambda runner: while_training.append(hooks_of(runner.model))),
    )
    assert while_training[0]
    assert hooks_of(distilled.model) == []
    ours, theirs = (checkpoint_of(runner, "epoch_2.pth") for runner in (distilled, plain))
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert ours.keys() - theirs.keys() == {"mmkd"}
    plain.model.load_state_dict(ours["state_dict"], strict=True)
    # After training, an evaluation of the same Runner.
    assert distilled.val().keys() == plain.val().keys()


def test_a_look_at_the_student_changes_none_of_its_modes(tmp_path: Path, teacher: dict) -> None:
    runner = Runner.from_cfg(toy_config(tmp_path, **distill(teacher)))
    runner.model.dropout.eval()
    before = modes_of(runner.model)
    after: dict[str, bool] = {}
    look = Probe(before_run=lambda runner: after.update(modes_of(runner.model)))
    runner.register_hook(look)
    runner.train()
    assert set(before.values()) == {True, False}
    assert after == before


def modes_of(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def test_a_loss_in_evaluation_mode_is_the_plain_one(tmp_path: Path, teacher: dict) -> None:
    """Some hooks compute a validation loss between training iterations."""
    found: list[set[str]] = []

    def validation_loss(runner: Runner) -> None:
        batch = next(iter(runner.train_dataloader))
        runner.model.eval()
        data = runner.model.data_preprocessor(batch)
        found.append(set(runner.model(**data, mode="loss")))
        runner.model.train()

    train(toy_config(tmp_path, **distill(teacher)), Probe(after_train_iter=validation_loss))
    assert found == [{"loss_cls", "losses_size", "accuracy"}] * 8


def test_init_detector_needs_no_teacher(tmp_path: Path, digits: Path) -> None:
    from mmdet.apis import inference_detector, init_detector
    from mmengine.config import Config

    teacher = write_detector_teacher(tmp_path)
    config = detector_config(digits, tmp_path, **distill(teacher), **{"train_cfg.max_epochs": 1})
    runner = train(config)
    checkpoint = Path(runner.work_dir) / "epoch_1.pth"
    Path(teacher["checkpoint"]).unlink()
    dumped = Path(runner.work_dir) / STUDENT_CONFIG.name
    assert Config.fromfile(dumped).custom_hooks[0].type == "mmkd.DistillHook"
    model = init_detector(str(dumped), str(checkpoint), device="cpu")
    weights = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert not differences(dict(weights), dict(model.state_dict()))
    image = str(next((digits / "val").glob("*.png")))
    assert inference_detector(model, image).pred_instances.scores.isfinite().all()
    # The Runner's own test, as tools/test.py runs it, on the same config.
    config = Config.fromfile(dumped)
    config.merge_from_dict(dict(load_from=str(checkpoint), experiment_name="testing"))
    assert "coco/bbox_mAP" in Runner.from_cfg(config).test()


def test_several_teachers(tmp_path: Path, teacher: dict) -> None:
    other = write_teacher(tmp_path, "other", seed=8)
    terms = dict(one=dict(source="a"), two=dict(source="b", level=0), three=dict(source="b"))
    runner = train(toy_config(tmp_path, **distill(dict(a=teacher, b=other), terms)))
    hook = distill_hook_of(runner)
    for name, settings in (("a", teacher), ("b", other)):
        file = torch.load(settings["checkpoint"])
        assert not differences(file["state_dict"], hook.teachers[name].model.state_dict())
    assert set(hook.distillers) == {"one", "two", "three"}
    default = distill_hook_of(
        train(toy_config(tmp_path, **distill(dict(a=teacher, b=other), None)))
    )
    assert {term.source for term in default.terms} == {"a", "b"}
    assert {term.name.partition("_s")[0] for term in default.terms} == {"a", "b"}


def test_a_teacher_of_another_package(tmp_path: Path) -> None:
    """Named ``package::path``, in its own scope and with its own preprocessing."""
    path = "mmpretrain::resnet/resnet18_8xb16_cifar10.py"
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(get_config(path).model)
    torch.save(model.state_dict(), tmp_path / "resnet.pth")
    teacher = dict(config=path, checkpoint=str(tmp_path / "resnet.pth"))
    calls = Calls()
    config = toy_config(tmp_path, **distill(teacher), **{"train_cfg.max_epochs": 1})
    train(config, calls.probe)
    assert tops(calls.counts) == {"backbone"}
    assert DefaultScope.get_current_instance().scope_name == "mmengine"


def test_a_module_teaches_by_a_registered_hook(tmp_path: Path) -> None:
    runner = Runner.from_cfg(toy_config(tmp_path))
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4))
    terms = dict(one=dict(student="backbone", teacher="0"))
    hook = DistillHook(teacher=dict(module=net, mean=[0.0] * 3, std=[255.0] * 3), terms=terms)
    runner.register_hook(hook)
    before = hook.distillers
    runner.train()
    assert before != hook.distillers
    assert "train/distill_one" in runner.message_hub.log_scalars


@pytest.mark.parametrize("dataset", ["CIFAR100", "CocoDataset"])
def test_a_teacher_s_training_tells_in_which_order_it_loaded(tmp_path: Path, dataset: str) -> None:
    """CIFAR's images are loaded as RGB, and a config of theirs swaps nothing; those of a student
    that reads files are swapped to RGB."""
    pipeline = [] if dataset == "CIFAR100" else [dict(type="LoadImageFromFile")]
    loader = dict(dataset=dict(type=dataset, pipeline=pipeline))
    preprocessor = dict(type="ImgDataPreprocessor", mean=[0.0] * 3, std=[1.0] * 3)
    model = dict(type="ToyModel", data_preprocessor=preprocessor)
    Config(dict(model=model, train_dataloader=loader)).dump(tmp_path / "t.py")
    torch.save(MODELS.build(model).state_dict(), tmp_path / "t.pth")
    settings = dict(config=str(tmp_path / "t.py"), checkpoint=str(tmp_path / "t.pth"))
    teacher = MMTeacher.parse("DistillHook teacher", settings)
    term = Term("one", "teacher")
    for student in (ImageFormat(swapped=True), ImageFormat(loaded="rgb")):
        built, _ = teacher.build([term], student, torch.zeros(1, 3, 16, 16))
        assert built.converts_images == (dataset == "CocoDataset")
    built, _ = teacher.build([term], ImageFormat(), torch.zeros(1, 3, 16, 16))
    assert built.converts_images == (dataset == "CIFAR100")


def test_a_config_that_names_no_scope_is_of_its_package() -> None:
    """As MMPretrain's configs of backbones alone."""
    path = "mmpretrain::dinov2/vit-small-p14_dinov2-pre_headless.py"
    assert "default_scope" not in get_config(path)
    teacher = MMTeacher.parse("DistillHook teacher", dict(config=path, checkpoint="vit.pth"))
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        model, _ = teacher._build_model()
        assert type(model).__name__ == "ImageClassifier"
