"""A user's mistake stops the run with the setting, what was found and what to do."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from packaging.specifiers import SpecifierSet
from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import ClassificationModel, DetectionModel

import mmkd.engine.ultralytics
from helpers.original_yolov5 import architecture, make_original, save_original
from helpers.yolo_toy import YOLOToy, attached, plain, read_checkpoint, read_results, train
from mmkd.engine.ultralytics import DistillCallback, DistillTrainer, checkpoint_files, distilling
from mmkd.engine.ultralytics import version as version_module
from mmkd.errors import SettingError
from mmkd.extras import installation


def check(error: pytest.ExceptionInfo, *parts: str) -> None:
    missing = [part for part in parts if part not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"


# On construction --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind", "parts"),
    [
        (dict(teacher=None), TypeError, ("teacher", "dict(yolo=...)", "None")),
        (dict(teacher={}), TypeError, ("teacher", "dict(yolo=...)", "{}")),
        (dict(teacher=3), TypeError, ("teacher", "3")),
        (
            dict(teacher=dict(yolo="t.pt", weights="t.pt")),
            ValueError,
            ("teacher has no key 'weights'", "it takes yolo"),
        ),
        (
            dict(teacher=dict(module=nn.Identity(), odrer="rgb")),
            ValueError,
            ("teacher has no key 'odrer'", "did you mean 'order'?"),
        ),
        (
            dict(teacher=dict(config="t.py")),
            ValueError,
            ("teacher.checkpoint: it is missing", ".pth or .safetensors"),
        ),
        (
            dict(teacher=dict(a="a.pt", b=dict(yolo="b.pt", x=1))),
            ValueError,
            ("teacher.b has no key 'x'",),
        ),
        (
            dict(teacher=dict(a="a.pt", b="b.pt"), terms=dict(one=dict(source="a"))),
            ValueError,
            ("teacher.b", "no term has source='b'"),
        ),
        (
            dict(teacher=dict(a="a.pt", b="b.pt"), terms=dict(one=dict())),
            ValueError,
            ("terms.one.source", "'a', 'b'", "None"),
        ),
        (dict(terms={}), ValueError, ("terms is empty", "leave it out")),
        (dict(terms=[dict()]), TypeError, ("terms must be a dict",)),
        (
            dict(terms=dict(one=dict(wieght=1))),
            ValueError,
            ("terms.one", "'wieght'", "did you mean 'weight'?"),
        ),
        *(
            (dict(terms=dict(one=dict(weight=weight))), ValueError, (f"terms.one.weight{message}",))
            for weight, message in (
                (-1.0, " must be 0 or more, got -1.0"),
                (dict(share=1.5), ": share must be from 0 to less than 1, got 1.5"),
                (dict(shar=0.5), " has no key 'shar' (did you mean 'share'?)"),
            )
        ),
        (dict(terms={"a,b": dict()}), ValueError, ("terms", "'a,b'", "plain word")),
        (dict(terms={"a.b": dict()}), ValueError, ("terms", "'a.b'", "plain word")),
        (dict(terms=dict(keys=dict())), ValueError, ("terms", "'keys'", "plain word")),
    ],
)
def test_settings(settings: dict, kind: type[Exception], parts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as error:
        DistillCallback(**{"teacher": "t.pt", **settings})
    check(error, "DistillCallback", *parts)


# On attaching -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "kind", "parts"),
    [
        ("no/such/teacher.pt", FileNotFoundError, ("no such file", "no/such/teacher.pt")),
        ("yolov5q.pt", FileNotFoundError, ("no such file", "yolov5q.pt")),
        ("yolov5m.yaml", ValueError, ("yolov5m.yaml", "without trained weights", "trained .pt")),
        ("yolov5m.yml", ValueError, ("yolov5m.yml", "without trained weights")),
        ("teacher.pth", ValueError, ("expected a .pt file", "teacher.pth")),
        ("teacher.onnx", ValueError, ("expected a .pt file", "teacher.onnx")),
        ("yolov5m", ValueError, ("expected a .pt file", "yolov5m")),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_no_such_teacher(
    toy: YOLOToy, file: str, kind: type[Exception], parts: tuple[str, ...], several: bool
) -> None:
    teacher = dict(good=str(toy.teacher), bad=file) if several else file
    terms = dict(a=dict(source="good"), b=dict(source="bad")) if several else None
    with pytest.raises(kind) as error:
        attached(toy, teacher=teacher, terms=terms)
    assert isinstance(error.value, kind) and isinstance(error.value, SettingError)
    assert error.value.setting and error.value.setting in str(error.value)
    check(error, f"DistillCallback teacher{'.bad' if several else ''}: ", *parts)


def test_a_name_that_ultralytics_downloads_is_no_error(toy: YOLOToy) -> None:
    """Whether it can be downloaded shows in training."""
    for name in ("yolov5m.pt", "yolov5mu.pt", "yolo11n.pt"):
        attached(toy, teacher=name)


def test_what_is_attached_to(toy: YOLOToy) -> None:
    callback = DistillCallback(str(toy.teacher))
    classifier = YOLO("yolov8n-cls.yaml")
    wrong = [
        (classifier, "YOLO (task 'classify')"),
        (classifier.model, "ClassificationModel"),
        (YOLO(toy.student).model, "DetectionModel"),
        ("yolov5n.yaml", "str"),
        (None, "NoneType"),
    ]
    for model, found in wrong:
        with pytest.raises(TypeError) as error:
            callback.attach(model)
        check(error, "DistillCallback.attach", "expected a YOLO detector", found)
        assert "train" not in vars(classifier)


def test_a_detector_of_another_kind(toy: YOLOToy) -> None:
    model = RTDETR("yolov8-rtdetr.yaml")
    with pytest.raises(TypeError) as error:
        DistillCallback(str(toy.teacher)).attach(model)
    check(error, "DistillCallback.attach", "expected a YOLO detector", "RTDETRDetectionModel")


def test_attaching_twice(toy: YOLOToy) -> None:
    model = attached(toy)
    for callback in (DistillCallback(str(toy.teacher)), owner_of(model)):
        with pytest.raises(ValueError) as error:
            callback.attach(model)
        check(error, "DistillCallback.attach", "has a distillation attached", "detach it")
    # Once detached, it is a plain model again, and can be attached to.
    owner = owner_of(model)
    owner.detach(model)
    assert not {"train", "tune"} & set(vars(model))
    assert all(not isinstance(getattr(f, "__self__", None), DistillCallback) for f in hooks(model))
    assert owner.attach(model) is model
    assert owner_of(model) is owner


def hooks(model: YOLO) -> list[Any]:
    return [function for functions in model.callbacks.values() for function in functions]


def owner_of(model: YOLO) -> DistillCallback:
    (owner,) = {
        function.__self__
        for function in hooks(model)
        if isinstance(getattr(function, "__self__", None), DistillCallback)
    }
    return owner


# Before the first iteration ---------------------------------------------------------------


def fail(toy: YOLOToy, model: YOLO, kind: type[Exception], **args: Any) -> pytest.ExceptionInfo:
    """The error of a training that must end before its first iteration."""

    def started(trainer: Any) -> None:
        raise AssertionError("training began")

    with pytest.raises(kind) as error:
        train(toy, model, on=dict(on_train_epoch_start=started), **args)
    assert isinstance(error.value, kind) and isinstance(error.value, SettingError)
    assert error.value.setting and error.value.setting in str(error.value)
    return error


def random_bytes(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 4)


def nothing(file: Path) -> None:
    file.touch()


def state_dict(file: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), file)


def mm_checkpoint(file: Path) -> None:
    torch.save(dict(state_dict=nn.Linear(2, 2).state_dict(), meta={}), file)


def cut_short(file: Path) -> None:
    torch.save(torch.zeros(1000), file)
    file.write_bytes(file.read_bytes()[:2000])


def torchscript(file: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(file))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        *((write, "is no checkpoint, or") for write in (random_bytes, nothing, cut_short)),
        *((write, "without an architecture") for write in (state_dict, mm_checkpoint)),
        (torchscript, "is no checkpoint, or"),
    ],
)
def test_a_file_that_is_no_checkpoint(
    toy: YOLOToy, tmp_path: Path, write: Callable[[Path], None], reason: str
) -> None:
    file = tmp_path / "teacher.pt"
    write(file)
    error = fail(toy, attached(toy, teacher=str(file)), ValueError)
    check(error, "DistillCallback teacher: ", str(file), reason)
    assert "\n" not in str(error)


def test_a_broken_file_by_the_name_of_a_download_is_kept(
    toy: YOLOToy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics would remove such a file, and download it again."""
    random_bytes(tmp_path / "yolov8n.pt")
    before = (tmp_path / "yolov8n.pt").read_bytes()
    monkeypatch.chdir(tmp_path)
    error = fail(toy, attached(toy, teacher="yolov8n.pt"), ValueError)
    check(error, "DistillCallback teacher: ", "yolov8n.pt", "is no checkpoint, or")
    assert (tmp_path / "yolov8n.pt").read_bytes() == before


def test_a_network_that_cannot_be_built(toy: YOLOToy, tmp_path: Path) -> None:
    model = make_original(architecture(1 / 16))
    model.yaml = {}
    file = save_original(tmp_path / "first.pt", model)
    error = fail(toy, attached(toy, teacher=str(file)), ValueError)
    check(error, "DistillCallback teacher: ", str(file), "without a definition of its layers")


def test_a_teacher_that_is_no_detector(toy: YOLOToy, tmp_path: Path) -> None:
    content = read_checkpoint(toy.teacher)
    model = ClassificationModel("yolov8n-cls.yaml", nc=4, verbose=False)
    model.task = "classify"
    torch.save({**content, "model": model}, tmp_path / "classifier.pt")
    model = attached(toy, teacher=str(tmp_path / "classifier.pt"))
    error = fail(toy, model, ValueError)
    check(
        error,
        "DistillCallback teacher: expected a detector",
        "ClassificationModel",
        "classifier.pt",
        "dict(module=...)",
    )
    in_memory = attached(toy, teacher=YOLO("yolov8n-cls.yaml"))
    check(fail(toy, in_memory, ValueError), "ClassificationModel", "dict(module=...)")


def test_a_file_that_vanished(toy: YOLOToy, tmp_path: Path) -> None:
    file = tmp_path / "teacher.pt"
    file.write_bytes(toy.teacher.read_bytes())
    model = attached(toy, teacher=str(file))
    file.unlink()
    check(fail(toy, model, FileNotFoundError), "DistillCallback teacher: no such file", str(file))


def test_a_download_that_fails(toy: YOLOToy, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(file: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(checkpoint_files, "attempt_download_asset", offline)
    error = fail(toy, attached(toy, teacher="yolov5m.pt"), ValueError)
    check(error, "DistillCallback teacher: yolov5m.pt", "could not be downloaded", "no route")


@pytest.mark.parametrize(
    ("part", "parts"),
    [
        (dict(view="locl"), ("view must be one of", "'dense'", "'locl'")),
        (dict(loss=dict(type="mmkd.LogSumLos")), ("'mmkd.LogSumLos'",)),
        (dict(projector=dict(type="mmkd.ConvConnector", layout="5x5")), ("layout", "'5x5'")),
    ],
)
def test_parts(toy: YOLOToy, part: dict, parts: tuple[str, ...]) -> None:
    error = fail(toy, attached(toy, terms=dict(one=part)), ValueError)
    check(error, "DistillCallback terms.one: ", *parts)


def test_shares_that_leave_nothing_to_the_task(toy: YOLOToy) -> None:
    terms = dict(one=dict(weight=dict(share=0.6)), two=dict(weight=dict(share=0.7)))
    error = fail(toy, attached(toy, terms=terms), ValueError)
    check(error, "DistillCallback terms: the shares of one, two, at the same feature", "to 1.3,")


def test_a_last_batch_of_one_is_found_before_training(toy: YOLOToy) -> None:
    """16 images in batches of 5."""
    terms = dict(one=dict(view="global"))
    error = fail(toy, attached(toy, terms=terms), ValueError, batch=5)
    check(error, "DistillCallback terms.one.view: ", "1 of 16 images", "set another batch size")


# What does not go together ----------------------------------------------------------------

FORBIDDEN = [
    (dict(distill_model="yolov8n.pt"), ("distill_model", "second distillation", "leave it out")),
    (dict(compile=True), ("compile is not supported", "leave it out")),
    (dict(compile="max-autotune"), ("compile is not supported", "leave it out")),
]


@pytest.mark.parametrize(("settings", "parts"), FORBIDDEN)
def test_settings_of_ultralytics(toy: YOLOToy, settings: dict, parts: tuple[str, ...]) -> None:
    error = fail(toy, attached(toy), ValueError, **settings)
    check(error, "DistillCallback: ", *parts)


@pytest.mark.parametrize(("settings", "parts"), FORBIDDEN)
def test_settings_of_ultralytics_in_a_file(
    toy: YOLOToy, tmp_path: Path, settings: dict, parts: tuple[str, ...]
) -> None:
    ((key, value),) = settings.items()
    (tmp_path / "settings.yaml").write_text(f"{key}: {value}\n", encoding="utf-8")
    error = fail(toy, attached(toy), ValueError, cfg=str(tmp_path / "settings.yaml"))
    check(error, "DistillCallback: ", *parts)


def test_tuning(toy: YOLOToy) -> None:
    with pytest.raises(RuntimeError) as error:
        attached(toy).tune(data=str(toy.data), iterations=1)
    check(error, "DistillCallback: model.tune()", "new processes", "model.train()")


@pytest.mark.parametrize("trainer", [ClassificationTrainer, DetectionModel, print, 3])
def test_a_trainer_of_another_kind(toy: YOLOToy, trainer: Any) -> None:
    error = fail(toy, attached(toy), TypeError, trainer=trainer)
    check(error, "DistillCallback: expected a DetectionTrainer as trainer", repr(trainer))


class Callbacks(DetectionTrainer):
    """A trainer of the user's own."""


def test_which_trainer_distils() -> None:
    assert distilling(DetectionTrainer) is DistillTrainer
    assert distilling(DistillTrainer) is DistillTrainer
    own = distilling(Callbacks)
    assert own.__name__ == "DistillCallbacks"
    assert own.__mro__[:2] == (own, DistillTrainer)
    assert issubclass(own, Callbacks)
    assert distilling(own) is own


def arguments(toy: YOLOToy, name: str) -> dict[str, Any]:
    return dict(
        model=str(toy.student),
        data=str(toy.data),
        epochs=1,
        batch=4,
        imgsz=64,
        project=str(toy.folder / "runs"),
        name=name,
        plots=False,
        workers=0,
        device="cpu",
    )


def test_callbacks_given_to_a_stock_trainer(toy: YOLOToy) -> None:
    """Its training would be plain."""
    callbacks = attached(toy).callbacks
    trainer = DetectionTrainer(overrides=arguments(toy, "stock"), _callbacks=callbacks)
    with pytest.raises(RuntimeError) as error:
        trainer.train()
    check(
        error,
        "DistillCallback: DetectionTrainer would train without distillation",
        "model.train()",
        "mmkd.engine.ultralytics.distilling(DetectionTrainer)",
    )
    assert not trainer.csv.exists()


def test_a_trainer_without_settings(toy: YOLOToy) -> None:
    with pytest.raises(RuntimeError) as error:
        DistillTrainer(overrides=arguments(toy, "bare"))
    check(error, "DistillCallback: DistillTrainer has no DistillCallback among its callbacks")
    check(error, "model.train()")


def test_the_way_out_works(toy: YOLOToy) -> None:
    trainer = distilling(Callbacks)(
        overrides=arguments(toy, "by_hand"), _callbacks=attached(toy).callbacks
    )
    trainer.train()
    assert read_results(trainer)["train/kd_loss"][0] != 0


def test_a_detached_model_trains_as_ever(toy: YOLOToy) -> None:
    model = attached(toy)
    owner_of(model).detach(model)
    trainer = train(toy, model, epochs=1)
    assert type(trainer) is DetectionTrainer
    assert read_results(trainer).keys() == read_results(plain(toy, epochs=1)).keys()


# In the first iterations ------------------------------------------------------------------


def break_down(toy: YOLOToy, model: YOLO, kind: type[Exception], **args: Any) -> Any:
    """The error of a training in its first iteration, or at its end."""
    done: list[int] = []

    def count(trainer: Any) -> None:
        done.append(1)

    with pytest.raises(kind) as error:
        train(toy, model, on=dict(on_train_batch_end=count), **args)
    assert len(done) <= 1
    return error


class Bypass(DetectionModel):
    """Computes its losses without a call of ``loss``."""

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(x, dict):
            return self.predict(x, *args, **kwargs)
        if getattr(self, "criterion", None) is None:
            self.criterion = self.init_criterion()
        return self.criterion(self.predict(x["img"]), x)


class BypassTrainer(DetectionTrainer):
    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        model = Bypass(cfg, nc=self.data["nc"], ch=self.data["channels"], verbose=False)
        if weights is not None:
            model.load(weights)
        return model


def test_a_term_that_never_fires(toy: YOLOToy) -> None:
    error = break_down(toy, attached(toy), RuntimeError, trainer=BypassTrainer)
    check(error, "DistillCallback", "'backbone'", "did not fire", "Bypass", "loss()")


class Skipped(nn.Module):
    """A layer that runs in evaluation alone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.f, self.i = layer.f, layer.i

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer.forward(x) if self.training else self.layer(x)


def test_a_module_that_does_not_run_in_training(toy: YOLOToy) -> None:
    model = YOLO(toy.student)

    class SkippingTrainer(DetectionTrainer):
        def get_model(self, *args: Any, **kwargs: Any) -> Any:
            network = super().get_model(*args, **kwargs)
            network.model[1] = Skipped(network.model[1])
            return network

    model = attached(toy, model, dict(one=dict(student="model.1.layer", teacher="model.1")))
    error = break_down(toy, model, RuntimeError, trainer=SkippingTrainer)
    check(error, "DistillCallback student: ", "'model.1.layer' did not run")


def test_a_frozen_student(toy: YOLOToy) -> None:
    error = break_down(toy, attached(toy), RuntimeError, freeze=8)
    check(error, "DistillCallback terms.backbone: ", "has no gradient", "freeze")


def test_a_teacher_that_is_not_finite(toy: YOLOToy) -> None:
    model = YOLO(toy.teacher)
    model.model.model[0].conv.weight.data[0, 0, 0, 0] = torch.nan
    error = break_down(toy, attached(toy, teacher=model), RuntimeError)
    check(error, "DistillCallback terms.backbone: ", "teacher's feature", "checkpoint")


# The version of Ultralytics ---------------------------------------------------------------


def supported() -> SpecifierSet:
    """The range in the project's file."""
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    extra = re.search(r"^yolo = \[(.*?)\]$", text, flags=re.MULTILINE | re.DOTALL)
    assert extra is not None
    (stated,) = re.findall(r'"ultralytics([^"]*)"', extra[1])
    return SpecifierSet(stated)


def test_the_installed_version_is_supported() -> None:
    assert supported().contains(ultralytics.__version__)
    version_module.check_version()


@pytest.mark.parametrize("version", ["8.0.0", "8.3.250", "8.4.189", "8.5.0", "8.5.0rc1", "9.0.1"])
def test_versions_outside_the_range(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(version_module, "version", lambda name: version)
    with pytest.raises(ImportError) as error:
        version_module.check_version()
    found = re.search(r"ultralytics([<>=!~\d.,]+), found", str(error.value))
    assert found is not None
    assert SpecifierSet(found[1]) == supported()
    check(error, "YOLO adapter", f"found {version}", installation("yolo"))


@pytest.mark.parametrize("version", ["8.4.190", "8.4.191", "8.4.1000", "8.4.200.dev1"])
def test_versions_in_the_range(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(version_module, "version", lambda name: version)
    version_module.check_version()


def test_importing_the_adapter_checks_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(version_module, "version", missing)
    with pytest.raises(ImportError) as error:
        importlib.reload(mmkd.engine.ultralytics)
    check(error, "YOLO adapter needs ultralytics", "found none", installation("yolo"))
