"""Which teachers a YOLO student can have, what they see, and what they compute."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from mmengine.registry import MODELS
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.nn.tasks import load_checkpoint

from helpers.detector import write_detector_teacher
from helpers.yolo_toy import (
    LAST,
    SIZE,
    TAP,
    TEACHER_CHANNELS,
    Stopped,
    YOLOToy,
    attached,
    read_checkpoint,
    read_results,
    train,
    weights_of,
    write_definition,
    write_teacher,
    yolov5,
)
from mmkd.engine.frozen_teacher import FrozenTeacher
from mmkd.engine.ultralytics.teacher import YOLO_FORMAT, YOLOTeacher, backbone_outputs
from mmkd.terms import Tap, Term

MODELS_FOLDER = Path(ultralytics.__file__).parent / "cfg" / "models"
CPU = torch.device("cpu")


def images(size: int = SIZE) -> Tensor:
    """RGB between 0 and 1, as Ultralytics' trainer prepares them."""
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def built(source: Any, *taps: str) -> FrozenTeacher:
    """A YOLO teacher without a training."""
    terms = [
        Term(f"t{i}", "teacher", teacher=(Tap(tap),)) for i, tap in enumerate(taps or ("backbone",))
    ]
    blank = torch.zeros(1, 3, SIZE, SIZE)
    return YOLOTeacher("Owner teacher", source).build(terms, YOLO_FORMAT, blank)[0]


def started(toy: YOLOToy, teacher: Any, terms: Any = None) -> Any:
    """The trainer of a training that is stopped where it begins."""

    def stop(trainer: Any) -> None:
        raise Stopped

    model = attached(toy, teacher=teacher, terms=terms)
    with pytest.raises(Stopped):
        train(toy, model, on=dict(on_train_start=stop))
    return model.trainer


def own_output(model: nn.Module, path: str, inputs: Tensor) -> Tensor:
    """What a module leaves in a plain forward pass of the model in eval mode."""
    found: list[Tensor] = []
    # Copied, as activations overwrite what they are given.
    hook = model.get_submodule(path).register_forward_hook(
        lambda module, args, output: found.append(output.clone())
    )
    model.eval()
    with torch.no_grad():
        model(inputs)
    hook.remove()
    (output,) = found
    return output


def close(feature: Tensor, expected: Tensor) -> bool:
    """Within 1e-4 of the expected values' standard deviation."""
    return float((feature - expected).abs().max()) <= 1e-4 * float(expected.std())


# In training ------------------------------------------------------------------------------


class Watch:
    """The student's images, and the teacher's modules as they run."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.student: list[Tensor] = []
        self.teacher: list[Tensor] = []
        self.calls: Counter[str] = Counter()
        self.on = dict(on_train_start=self.start)

    def start(self, trainer: Any) -> None:
        (teacher,) = trainer.distillation.teachers.values()
        trainer.model.model[0].register_forward_pre_hook(self._see_student)
        see = teacher.model.get_submodule(self.module).register_forward_pre_hook
        see(lambda m, args: self.teacher.append(args[0].double()))
        for name, module in teacher.model.named_modules():
            module.register_forward_pre_hook(lambda m, a, name=name: self.calls.update([name]))

    def _see_student(self, module: nn.Module, args: Any) -> None:
        if module.training:
            self.student.append(args[0].double())


def distilled(toy: YOLOToy, watch: Watch, teacher: Any, terms: Any = LAST) -> Any:
    """The trainer of two iterations, in which the distillation was at work."""
    model = attached(toy, teacher=teacher, terms=terms)
    trainer = train(toy, model, on=watch.on, epochs=1, batch=8)
    assert len(watch.student) == len(watch.teacher) == 2
    assert all(0 <= image.min() < image.max() <= 1 for image in watch.student)
    for (value,) in (v for k, v in read_results(trainer).items() if "kd" in k):
        assert value != 0 and abs(value) < 100
    return trainer


def test_a_detector_of_other_classes(toy: YOLOToy) -> None:
    watch = Watch("model.0")
    trainer = distilled(toy, watch, str(toy.teacher))
    (teacher,) = trainer.distillation.teachers.values()
    assert (len(teacher.model.names), trainer.model.nc) == (3, 10)
    # It sees the student's very images, and runs to its tap, once a batch.
    assert all(map(torch.equal, watch.student, watch.teacher))
    layers = {name for name in watch.calls if name.count(".") == 1}
    assert layers == {f"model.{index}" for index in range(int(TAP.removeprefix("model.")) + 1)}
    assert {watch.calls[name] for name in layers} == {2}
    original, _ = load_checkpoint(toy.teacher)
    feature = teacher.features(images())[TAP]
    assert feature.shape[1] == TEACHER_CHANNELS
    assert close(feature, own_output(original, TAP, images()))


@pytest.fixture(scope="module")
def faster_rcnn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The ``teacher`` setting of an MMDetection detector."""
    return write_detector_teacher(tmp_path_factory.mktemp("mm"))


def channelwise(images: Tensor, mean: Any, std: Any, order: str) -> Tensor:
    """From RGB between 0 and 1, by hand."""
    rgb = dict(zip("rgb", (images * 255).unbind(1), strict=True))
    channels = [(rgb[c] - m) / s for c, m, s in zip(order, mean, std, strict=True)]
    return torch.stack(channels, dim=1)


def same_images(watch: Watch, mean: Any, std: Any, order: str) -> None:
    for ours, theirs in zip(watch.student, watch.teacher, strict=True):
        expected = channelwise(ours, mean, std, order)
        assert (expected - ours).abs().max() > 0.1
        torch.testing.assert_close(theirs, expected, rtol=1e-5, atol=1e-5)


def test_an_mmdetection_detector_by_config(toy: YOLOToy, faster_rcnn: dict[str, str]) -> None:
    watch = Watch("backbone")
    trainer = distilled(toy, watch, faster_rcnn, dict(b=dict(student_level=0)))
    (teacher,) = trainer.distillation.teachers.values()
    own = teacher.model.data_preprocessor
    mean, std = own.mean.flatten().tolist(), own.std.flatten().tolist()
    assert mean[0] > 1 and std[0] > 1
    same_images(watch, mean, std, "rgb" if own._channel_conversion else "bgr")
    assert {name.partition(".")[0] for name in watch.calls if name} == {"backbone"}
    weights = torch.load(faster_rcnn["checkpoint"])["state_dict"]
    assert all(torch.equal(value, weights[k]) for k, value in teacher.model.state_dict().items())
    (term,) = trainer.distillation.terms
    assert term.student == (Tap(backbone_outputs(trainer.model)[0]),)
    assert term.teacher == (Tap("backbone"),)


def distillers(trainer: Any) -> Any:
    return trainer.distillation.distillers.named_children()


def resnet() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return MODELS.build(dict(type="mmdet.ResNet", depth=18, base_channels=8, stem_channels=8))


@pytest.mark.parametrize(
    ("mean", "std", "order"),
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb"),
        ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "bgr"),
    ],
)
def test_an_mmdetection_backbone(toy: YOLOToy, mean: tuple, std: tuple, order: str) -> None:
    module = resnet()
    before = copy.deepcopy(module.state_dict())
    watch = Watch("conv1")
    teacher = dict(module=module, mean=mean, std=std, order=order)
    trainer = distilled(toy, watch, teacher)
    same_images(watch, mean, std, order)
    (term,) = trainer.distillation.terms
    assert (term.student, term.teacher) == ((Tap(TAP),), (Tap(""),))
    assert dict(distillers(trainer))["backbone"].teacher_channels == 64
    # The user's own module is as it was.
    assert module.training
    assert all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# Ways of naming one -----------------------------------------------------------------------


def test_models_in_memory(toy: YOLOToy) -> None:
    model = YOLO(toy.teacher)
    model.model.train()
    model.model.model[0].requires_grad_(False)
    before = copy.deepcopy(model.model.state_dict())
    trained = [p.requires_grad for p in model.model.parameters()]
    named = dict(whole=model, network=model.model, plain=dict(module=resnet()))
    trainer = started(toy, named, {k: dict(source=k) for k in named})
    teachers = trainer.distillation.teachers
    expected = own_output(load_checkpoint(toy.teacher)[0], TAP, images())
    for name in ("whole", "network"):
        assert close(teachers[name].features(images())[TAP], expected)
    # Its format is not known, so it is taken to be the student's.
    plain = own_output(resnet(), "layer4", images())
    torch.testing.assert_close(teachers["plain"].features(images())[""][-1], plain)
    # The user's own model is as it was.
    after = model.model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(module.training for module in model.model.modules())
    assert [p.requires_grad for p in model.model.parameters()] == trained
    assert set(trained) == {True, False}
    assert not any(module._forward_hooks for module in model.model.modules())
    assert not model.model.is_fused()


@pytest.mark.parametrize("spelled_out", [False, True])
def test_one_model_in_memory(toy: YOLOToy, spelled_out: bool) -> None:
    model = YOLO(toy.teacher)
    trainer = started(toy, dict(yolo=model) if spelled_out else model)
    (teacher,) = trainer.distillation.teachers.values()
    assert close(teacher.features(images())[TAP], own_output(model.model, TAP, images()))


def test_a_plain_module(toy: YOLOToy) -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 8, stride=8), nn.Conv2d(6, 9, 4, stride=4))
    trainer = started(toy, module)
    (teacher,) = trainer.distillation.teachers.values()
    torch.testing.assert_close(teacher.features(images())[""], module(images()).detach())


def test_files_by_name(toy: YOLOToy) -> None:
    other = write_definition(toy.folder / "other.yaml", read_definition(toy.teacher), 0.5, 2)
    files = dict(one=str(toy.teacher), two=write_teacher(other, seed=8))
    terms = dict(a=dict(source="one"), b=dict(source="two"), c=dict(source="two", level=0))
    trainer = started(toy, files, terms)
    channels = {name: d.teacher_channels for name, d in distillers(trainer)}
    assert channels == dict(a=48, b=16, c=8)
    for name, file in files.items():
        expected = own_output(load_checkpoint(file)[0], TAP, images())
        assert close(trainer.distillation.teachers[name].features(images())[TAP], expected)


def read_definition(checkpoint: Path) -> dict[str, Any]:
    return read_checkpoint(checkpoint)["model"].yaml


def test_the_file_that_is_named_is_the_one_that_is_loaded(
    toy: YOLOToy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics takes the names of its first YOLOv5 files for those of their successors."""
    definition = write_definition(tmp_path / "d.yaml", read_definition(toy.teacher), 0.5, 2)
    write_teacher(definition, seed=1).rename(tmp_path / "yolov5m.pt")
    write_teacher(definition, seed=2).rename(tmp_path / "yolov5mu.pt")
    digest = hashlib.sha256((tmp_path / "yolov5m.pt").read_bytes()).hexdigest()
    monkeypatch.chdir(tmp_path)
    teacher = built("yolov5m.pt")
    expected = own_output(read_checkpoint(tmp_path / "yolov5m.pt")["model"].float(), TAP, images())
    decoy = own_output(read_checkpoint(tmp_path / "yolov5mu.pt")["model"].float(), TAP, images())
    assert close(teacher.features(images())[TAP], expected)
    assert not close(teacher.features(images())[TAP], decoy)
    assert f"DetectionModel of 2 classes from yolov5m.pt (sha256 {digest})" in teacher.introduction


# Its BatchNorm is folded ------------------------------------------------------------------


@pytest.mark.parametrize("family", ["v5/yolov5", "v8/yolov8", "11/yolo11", "26/yolo26"])
def test_folded_features_are_the_unfolded_ones(tmp_path: Path, family: str) -> None:
    content = yaml.safe_load((MODELS_FOLDER / f"{family}.yaml").read_text(encoding="utf-8"))
    file = write_teacher(write_definition(tmp_path / "t.yaml", content, 0.25, 3))
    outputs = ["model.4", "model.6", f"model.{len(content['backbone']) - 1}"]
    teacher = built(str(file), *outputs)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ran(teacher))
    convolutions = [m.weight for m in ran(teacher) if isinstance(m, nn.Conv2d)]
    assert len(convolutions) > 20
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in convolutions)
    original, _ = load_checkpoint(file)
    features = teacher.features(images())
    for path in outputs:
        expected = own_output(original, path, images())
        assert expected.std() > 1e-3
        assert close(features[path], expected), path


def ran(teacher: FrozenTeacher) -> list[nn.Module]:
    return [module for name, module in teacher.model.named_modules() if name in teacher.ran]


@pytest.mark.parametrize("inner", ["conv", "bn"])
def test_a_tap_within_a_fold_is_left_whole(tmp_path: Path, inner: str) -> None:
    file = write_teacher(write_definition(tmp_path / "t.yaml", yolov5(), 0.25, 3))
    taps = (f"model.9.cv2.{inner}", "model.6")
    features = built(str(file), *taps).features(images())
    original, _ = load_checkpoint(file)
    for path in taps:
        assert close(features[path], own_output(original, path, images())), path


@pytest.mark.parametrize(
    ("family", "width", "tap"),
    [
        # The branch of the head that is not asked for predictions: folding removes it.
        ("26/yolo26", 0.125, "model.23.one2one_cv2.0"),
        # One of two parallel convolutions: folding makes it their sum.
        ("v10/yolov10s", 0.125, "model.8.m.0.cv1.2.conv"),
        ("v10/yolov10s", 0.125, "model.8.m.0.cv1.2.conv1"),
    ],
)
def test_a_tap_that_folding_would_change(
    tmp_path: Path, family: str, width: float, tap: str
) -> None:
    content = yaml.safe_load((MODELS_FOLDER / f"{family}.yaml").read_text(encoding="utf-8"))
    file = write_teacher(write_definition(tmp_path / "t.yaml", content, width, 3))
    expected = own_output(load_checkpoint(file)[0], tap, images())
    assert close(built(str(file), tap).features(images())[tap], expected)


def test_a_detector_that_was_folded_before(toy: YOLOToy) -> None:
    model, _ = load_checkpoint(toy.teacher)
    expected = own_output(model, TAP, images())
    folded = copy.deepcopy(model).fuse(verbose=False)
    assert close(built(folded).features(images())[TAP], expected)


def test_a_checkpoint_in_half_precision(toy: YOLOToy, tmp_path: Path) -> None:
    """As Ultralytics strips them; and one that holds only the averaged weights."""
    content = read_checkpoint(toy.teacher)
    model = content["model"].half()
    expected = own_output(copy.deepcopy(model).float(), TAP, images())
    for kind in ("model", "ema"):
        torch.save({**content, "model": None, kind: model}, tmp_path / f"{kind}.pt")
        feature = built(str(tmp_path / f"{kind}.pt")).features(images())[TAP]
        assert feature.dtype == torch.float32
        assert close(feature, expected)
    assert weights_of(tmp_path / "ema.pt").keys() == content["model"].state_dict().keys()
