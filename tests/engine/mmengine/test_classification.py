"""What the hook promises for detectors holds for MMPretrain's classifiers."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmpretrain.apis import get_model
from torch import Tensor, nn

from helpers.classifier_toy import (
    INHERIT,
    JOINT_TERM,
    KD_TERM,
    LOGITS_TERM,
    SIMKD_TERM,
    SIZE,
    SRRL_TERM,
    TEACHER_WIDTH,
    VALIDATION,
    LabelledNoise,
    classifier,
    classifier_config,
    connector_head,
    distill,
    tiny_deit,
    write_classifier,
)
from helpers.toy import LossRecorder, Probe, checkpoint_of, differences, distill_hook_of, train

LOGS = ("meta", "message_hub")
LOGSUM_TERM = dict(view="global")
METHODS: dict[str, tuple[Callable[[], dict], dict, dict]] = {
    "kd": (classifier, dict(kd=KD_TERM), {}),
    "logsum": (classifier, dict(feature=LOGSUM_TERM, kd=KD_TERM), {}),
    "srrl": (classifier, dict(srrl=SRRL_TERM), {}),
    "simkd": (
        lambda: classifier(
            head=connector_head(loss=dict(type="CrossEntropyLoss", loss_weight=0.0))
        ),
        dict(map=SIMKD_TERM),
        dict(inherit=INHERIT),
    ),
    "ijckd": (
        lambda: classifier(head=connector_head()),
        dict(map=SIMKD_TERM, logits=LOGITS_TERM),
        dict(inherit=INHERIT),
    ),
    "joint": (
        lambda: classifier(head=connector_head(freeze_classifier=False)),
        dict(map=SIMKD_TERM, joint=JOINT_TERM),
        dict(inherit=INHERIT),
    ),
    "deit": (
        tiny_deit,
        dict(
            dist=dict(
                student="head.layers.head_dist",
                teacher="head.fc",
                loss=dict(type="mmkd.HardDistillationLoss"),
            )
        ),
        {},
    ),
}
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return write_classifier(tmp_path_factory.mktemp("teacher"))


def config_of(folder: Path, teacher: dict, method: str, **overrides: Any) -> Config:
    model, terms, settings = METHODS[method]
    return classifier_config(folder, model(), **distill(teacher, terms, **settings), **overrides)


def end_of(runner: Runner) -> dict[str, Any]:
    """All that a run ends in, but for what is logged."""
    checkpoint = checkpoint_of(runner, "epoch_2.pth")
    return {k: v for k, v in checkpoint.items() if k not in LOGS}


def built(model: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return MODELS.build(copy.deepcopy(model))


class Whole:
    """A run of two epochs of a method, from which several tests read.

    Attributes:
        touched: Whether, after any iteration, part of the teacher was in training mode or had a
            gradient.
        ran: The teacher's modules that ran in training.
    """

    def __init__(self, folder: Path, teacher: dict, method: str) -> None:
        self.make = partial(
            config_of,
            folder,
            teacher,
            method,
            **VALIDATION,
            **{
                "train_dataloader.dataset.flip": True,
                "param_scheduler": [dict(type="CosineAnnealingLR", T_max=2, by_epoch=True)],
            },
        )
        self.touched: list[bool] = []
        self.ran: set[str] = set()
        look = Probe(before_train=self._watch, after_train_iter=self._look)
        self.runner = train(self.make(), look)

    def _watch(self, runner: Runner) -> None:
        (of_hook,) = distill_hook_of(runner).teachers.values()
        for name, module in of_hook.model.named_modules():
            module.register_forward_pre_hook(lambda *_, name=name: self.ran.add(name))

    def _look(self, runner: Runner) -> None:
        (of_hook,) = distill_hook_of(runner).teachers.values()
        self.touched += [module.training for module in of_hook.model.modules()]
        self.touched += [p.grad is not None for p in of_hook.model.parameters()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, teacher: dict) -> Callable[[str], Whole]:
    """The whole run of a method, trained when first asked for."""
    folder = tmp_path_factory.mktemp("whole")
    return cache(lambda method: Whole(folder, teacher, method))


# Weight 0 and resume ----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_weight_zero_ends_in_the_bits_of_a_plain_run(
    tmp_path: Path, teacher: dict, workers: int
) -> None:
    model = classifier(norm=True, dropout=0.2)
    settings = {
        **VALIDATION,
        "train_dataloader.num_workers": workers,
        "train_dataloader.dataset.flip": True,
    }
    off = {"weight": 0.0}
    terms = dict(kd={**KD_TERM, **off}, feature={**LOGSUM_TERM, **off}, srrl={**SRRL_TERM, **off})
    plain = end_of(train(classifier_config(tmp_path, model, **settings)))
    distilled = end_of(
        train(classifier_config(tmp_path, model, **settings, **distill(teacher, terms)))
    )
    assert not differences(plain["state_dict"], distilled["state_dict"])
    assert not differences(plain["optimizer"]["state"], distilled["optimizer"]["state"])


@every_method
def test_resume_ends_in_the_bits_of_one_run(whole: Callable[[str], Whole], method: str) -> None:
    run = whole(method)
    checkpoint = str(Path(run.runner.work_dir) / "epoch_1.pth")
    resumed = train(run.make(load_from=checkpoint, resume=True))
    assert not differences(end_of(run.runner), end_of(resumed))


def test_a_resumed_joint_classifier_goes_on_from_the_checkpoint(
    tmp_path: Path, teacher: dict
) -> None:
    runner = train(config_of(tmp_path, teacher, "joint"))
    checkpoint = Path(runner.work_dir) / "epoch_1.pth"
    saved = torch.load(checkpoint, weights_only=False)["state_dict"]["head.fc.weight"]
    first = torch.load(teacher["checkpoint"])["state_dict"]["head.fc.weight"]
    assert not torch.equal(saved, first)
    found: list[Tensor] = []
    keep = Probe(before_train=lambda r: found.append(r.model.head.fc.weight.detach().clone()))
    resume = dict(load_from=str(checkpoint), resume=True)
    train(config_of(tmp_path, teacher, "joint", **resume), keep)
    # What only initialises is another matter: the classifier is taken from the teacher again.
    train(config_of(tmp_path, teacher, "joint", load_from=str(checkpoint)), keep)
    train(config_of(tmp_path, teacher, "joint", resume=True), keep)
    assert torch.equal(found[0], saved)
    assert torch.equal(found[1], first)
    assert torch.equal(found[2], first)


# Checkpoints ------------------------------------------------------------------------------


@every_method
def test_the_checkpoint_is_the_plain_student_s(whole: Callable[[str], Whole], method: str) -> None:
    weights = checkpoint_of(whole(method).runner, "epoch_2.pth")["state_dict"]
    student = built(METHODS[method][0]())
    assert list(weights) == list(student.state_dict())
    student.load_state_dict(weights, strict=True)


WITHOUT_THE_TEACHER = """
import sys, torch
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings
import helpers.classifier_toy
from mmpretrain.apis import get_model
config = Config.fromfile(sys.argv[1])
model = get_model(config, pretrained=sys.argv[2])
torch.save(model(torch.load(sys.argv[3])), sys.argv[4])
"""


@pytest.mark.parametrize("method", ["simkd", "joint"])
def test_a_deployed_connector_predicts_without_the_teacher(tmp_path: Path, method: str) -> None:
    """In another process too, through MMPretrain's own functions and the run's own config."""
    own_teacher = write_classifier(tmp_path)
    tests = {f"test{key.removeprefix('val')}": value for key, value in VALIDATION.items()}
    tests["test_cfg"] = dict()
    runner = train(config_of(tmp_path, own_teacher, method, **tests, **{"train_cfg.max_epochs": 1}))
    checkpoint = Path(runner.work_dir) / "epoch_1.pth"
    file = torch.load(own_teacher["checkpoint"])["state_dict"]
    for each in own_teacher.values():
        Path(each).unlink()
    (dumped,) = (each for each in Path(runner.work_dir).glob("*.py"))
    config = Config.fromfile(dumped)
    assert config.custom_hooks[0].type == "mmkd.DistillHook"
    images = torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    expected = runner.model.eval()(images).detach()
    model = get_model(config, pretrained=str(checkpoint))
    assert type(model.head).__name__ == "ConnectorClsHead"
    assert torch.equal(model(images), expected)
    predicted = model(images, mode="predict")
    assert [int(each.pred_label) for each in predicted] == expected.argmax(dim=1).tolist()
    is_teacher = torch.equal(model.head.fc.weight, file["head.fc.weight"])
    assert is_teacher == (method == "simkd")
    # The Runner's own test, as tools/test.py runs it.
    config.merge_from_dict(dict(load_from=str(checkpoint), experiment_name=f"test_{method}"))
    assert "accuracy/top1" in Runner.from_cfg(config).test()
    if method == "joint":
        return
    # Once, for it takes seconds: a process that never saw the hook at work.
    torch.save(images, tmp_path / "images.pt")
    files = [str(dumped), str(checkpoint), str(tmp_path / "images.pt"), str(tmp_path / "out.pt")]
    subprocess.run([sys.executable, "-c", WITHOUT_THE_TEACHER, *files], check=True)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), expected)


def test_deit_s_checkpoint_serves_the_stock_head(tmp_path: Path, teacher: dict) -> None:
    runner = train(config_of(tmp_path, teacher, "deit", **{"train_cfg.max_epochs": 1}))
    weights = checkpoint_of(runner, "epoch_1.pth")["state_dict"]
    model = tiny_deit()
    model["head"]["type"] = "DeiTClsHead"
    stock = built(model)
    assert list(weights) == list(stock.state_dict())
    stock.load_state_dict(weights, strict=True)
    stock.eval()
    runner.model.eval()
    images = torch.randn(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(runner.model(images), stock(images), rtol=1e-6, atol=1e-6)
    ours, theirs = (m(images, mode="predict") for m in (runner.model, stock))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.pred_score, b.pred_score)
        assert int(a.pred_label) == int(b.pred_label)


def test_ema_s_copy_inherits_too(tmp_path: Path, teacher: dict) -> None:
    """It is made before the weights are taken over."""
    ema = dict(type="EMAHook", momentum=0.5)
    config = config_of(tmp_path, teacher, "simkd", **{"train_cfg.max_epochs": 1})
    config.custom_hooks.append(ema)
    weights = checkpoint_of(train(config), "epoch_1.pth")["state_dict"]
    file = torch.load(teacher["checkpoint"])["state_dict"]
    assert torch.equal(weights["head.fc.weight"], file["head.fc.weight"])
    assert torch.equal(weights["head.fc.bias"], file["head.fc.bias"])


# The teacher ------------------------------------------------------------------------------


@every_method
def test_the_teacher_stays_as_it_was(
    whole: Callable[[str], Whole], teacher: dict, method: str
) -> None:
    run = whole(method)
    assert run.touched and not any(run.touched)
    (of_hook,) = distill_hook_of(run.runner).teachers.values()
    file = torch.load(teacher["checkpoint"])["state_dict"]
    assert not differences(dict(file), dict(of_hook.model.state_dict()))
    ids = {id(p) for p in of_hook.model.parameters()}
    groups = run.runner.optim_wrapper.optimizer.param_groups
    assert not ids & {id(p) for group in groups for p in group["params"]}


@pytest.mark.parametrize("method", ["simkd", "srrl"])
def test_the_teacher_s_classifier_does_not_run(whole: Callable[[str], Whole], method: str) -> None:
    """Its weights are used where only the backbone is tapped."""
    assert {name.partition(".")[0] for name in whole(method).ran if name} == {"backbone"}


@pytest.mark.parametrize("place", ["model", "config"])
def test_the_teacher_s_own_preprocessing(tmp_path: Path, place: str) -> None:
    """MMPretrain's configs hold ``data_preprocessor`` beside ``model``; the Runner puts it in."""
    own = dict(type="ClsDataPreprocessor", mean=[10.0, 20.0, 30.0], std=[50.0, 60.0, 70.0])
    setting = write_classifier(tmp_path)
    config = Config.fromfile(setting["config"])
    if place == "model":
        config.model.data_preprocessor = own
    else:
        del config.model["data_preprocessor"]
        config.data_preprocessor = own
    config.dump(setting["config"])
    given: list[Tensor] = []

    def watch(runner: Runner) -> None:
        (of_hook,) = distill_hook_of(runner).teachers.values()
        of_hook.model.backbone.conv.register_forward_pre_hook(
            lambda module, args: given.append(args[0])
        )

    settings = {"train_dataloader.sampler.shuffle": False, "train_cfg.max_epochs": 1}
    train(config_of(tmp_path, setting, "kd", **settings), Probe(before_train=watch))
    images = torch.stack([LabelledNoise().image(i) for i in range(4)]).float()
    mean, std = (torch.tensor(own[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    # As loaded, BGR: this preprocessor does not swap.
    torch.testing.assert_close(given[0], (images - mean) / std, rtol=1e-4, atol=1e-4)


# Labels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["kd", "joint"])
def test_mixup(tmp_path: Path, teacher: dict, method: str) -> None:
    """Both networks see the mixed images; labels are their mixed probabilities."""
    recorder, taken = LossRecorder(), []
    config = config_of(tmp_path, teacher, method, **{"train_cfg.max_epochs": 1})
    config.model.data_preprocessor.batch_augments = dict(augments=dict(type="Mixup", alpha=0.8))

    def watch(runner: Runner) -> None:
        of_hook = distill_hook_of(runner)
        if method == "joint":
            of_hook.distillers["joint"].loss.register_forward_pre_hook(
                lambda module, args, kwargs: taken.append(kwargs["targets"].labels),
                with_kwargs=True,
            )
        (of_teacher,) = of_hook.teachers.values()
        of_teacher.model.register_forward_pre_hook(lambda m, args: inputs["t"].append(args[0]))
        runner.model.backbone.register_forward_pre_hook(lambda m, a: inputs["s"].append(a[0]))

    inputs: dict[str, list[Tensor]] = dict(s=[], t=[])
    train(config, Probe(before_train=watch), recorder)
    assert not differences(inputs["s"], inputs["t"])
    assert all(torch.isfinite(torch.tensor(list(each.values()))).all() for each in recorder.logged)
    for labels in taken:
        assert labels.shape == (4, 3)
        torch.testing.assert_close(labels.sum(dim=1), torch.ones(4))
    assert len(taken) == (4 if method == "joint" else 0)
    assert not taken or any(labels.max(dim=1).values.min() < 0.99 for labels in taken)


def test_class_indices_reach_the_loss_in_order(tmp_path: Path, teacher: dict) -> None:
    taken: list[Tensor] = []

    def watch(runner: Runner) -> None:
        distill_hook_of(runner).distillers["joint"].loss.register_forward_pre_hook(
            lambda module, args, kwargs: taken.append(kwargs["targets"].labels), with_kwargs=True
        )

    settings = {"train_dataloader.sampler.shuffle": False, "train_cfg.max_epochs": 1}
    train(config_of(tmp_path, teacher, "joint", **settings), Probe(before_train=watch))
    assert torch.cat(taken).tolist() == [i % 3 for i in range(16)]


@pytest.mark.parametrize("teacher_preprocessor", [None, dict(type="ClsDataPreprocessor")])
def test_two_views(tmp_path: Path, teacher_preprocessor: dict | None) -> None:
    """The batch of views is distilled like any other, whatever the teacher's preprocessing."""
    setting = write_classifier(tmp_path)
    if teacher_preprocessor:
        config = Config.fromfile(setting["config"])
        config.model.data_preprocessor = teacher_preprocessor
        config.dump(setting["config"])
    recorder, sizes = LossRecorder(), []
    config = config_of(tmp_path, setting, "joint", **VALIDATION)
    config.model.data_preprocessor.type = "mmkd.MultiViewPreprocessor"
    config.train_dataloader.dataset.views = 2

    def watch(runner: Runner) -> None:
        runner.model.backbone.register_forward_pre_hook(
            lambda module, args: sizes.append(len(args[0])) if module.training else None
        )

    runner = train(config, Probe(before_train=watch), recorder)
    assert sizes == [8] * runner.iter
    assert all(each["loss_distill_joint"] > 0 for each in recorder.logged)


def test_simkd_s_ratio_has_no_task_loss_to_compare_with(tmp_path: Path, teacher: dict) -> None:
    recorder = LossRecorder()
    train(config_of(tmp_path, teacher, "simkd"), recorder)
    for each in recorder.logged:
        assert each["distill_ratio"] == 0
        assert each["loss_distill_map"] > 0


def test_the_student_comes_closer_to_the_teacher(tmp_path: Path, teacher: dict) -> None:
    recorder = LossRecorder()
    train(config_of(tmp_path, teacher, "kd", **{"train_cfg.max_epochs": 15}), recorder)
    distances = [each["distill_kd"] for each in recorder.logged]
    assert sum(distances[-4:]) < 0.8 * sum(distances[:4])


# Errors -----------------------------------------------------------------------------------


def refused(folder: Path, teacher: dict, model: dict, terms: dict, **settings: Any) -> str:
    """What a run that must not begin says."""
    config = classifier_config(folder, model, **distill(teacher, terms, **settings))
    with pytest.raises((ValueError, TypeError, RuntimeError)) as error:
        train(config, Probe(before_train_iter=lambda runner: pytest.fail("training began")))
    assert str(error.value).startswith("DistillHook ")
    return str(error.value)


def holds(text: str, *parts: str) -> None:
    missing = [part for part in parts if part not in text]
    assert not missing, f"{missing} not in: {text}"


@pytest.fixture(scope="module")
def five_classes(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A teacher of five classes."""
    folder = tmp_path_factory.mktemp("five")
    head = dict(type="LinearClsHead", num_classes=5, in_channels=TEACHER_WIDTH)
    return write_classifier(folder, head=head)


@pytest.mark.parametrize("term", [KD_TERM, LOGITS_TERM])
def test_logits_of_other_classes(tmp_path: Path, five_classes: dict, term: dict) -> None:
    text = refused(tmp_path, five_classes, classifier(), dict(kd=term))
    holds(text, "terms.kd", "got 3 of the student and 5 of the teacher", "the same classes")


@pytest.mark.parametrize("method", ["simkd", "ijckd", "joint"])
def test_a_reused_classifier_of_other_classes(
    tmp_path: Path, five_classes: dict, method: str
) -> None:
    model, terms, settings = METHODS[method]
    terms = {name: term for name, term in terms.items() if name != "logits"}
    text = refused(tmp_path, five_classes, model(), terms, **settings)
    holds(text, "inherit.head.fc", "(3, 6)", "(5, 6)", "num_classes", "teacher_channels")


def test_a_reused_classifier_of_another_width(tmp_path: Path, teacher: dict) -> None:
    head = connector_head(teacher_channels=8, connector=dict(type="mmkd.LinearProjector"))
    terms = dict(map={**SIMKD_TERM, "projector": dict(type="mmkd.LinearProjector")})
    text = refused(tmp_path, teacher, classifier(head=head), terms, inherit=INHERIT)
    holds(text, "inherit.head.fc", "(3, 8)", "(3, 6)")


def test_a_map_of_another_width(tmp_path: Path, teacher: dict) -> None:
    head = connector_head(teacher_channels=8)
    text = refused(tmp_path, teacher, classifier(head=head), dict(map=SIMKD_TERM), inherit=INHERIT)
    holds(text, "terms.map", "got 8 of the student and 6 of the teacher")


def test_a_frozen_classifier_that_inherits_nothing(tmp_path: Path, teacher: dict) -> None:
    model = classifier(head=connector_head())
    text = refused(tmp_path, teacher, model, dict(map=SIMKD_TERM))
    holds(text, "inherit", "head.fc is frozen", "inherit={'head.fc': 'head.fc'}")


@pytest.mark.parametrize("ours", ["head.layers.head_dist", "head.fc_dist"])
def test_a_missing_distillation_classifier(tmp_path: Path, teacher: dict, ours: str) -> None:
    head = dict(type="VisionTransformerClsHead", num_classes=3, in_channels=8)
    model = tiny_deit(head=head, distilled=False)
    text = refused(tmp_path, teacher, model, dict(dist={**KD_TERM, "student": ours}))
    holds(text, "terms.dist.student", f"no module {ours!r}", "Close matches", "head.layers.head")


def test_a_missing_distillation_token(tmp_path: Path, teacher: dict) -> None:
    model = tiny_deit(distilled=False)
    term = {**KD_TERM, "student": "head.layers.head_dist"}
    text = refused(tmp_path, teacher, model, dict(dist=term))
    holds(text, "no distillation token", "(1, 8)", "DistilledVisionTransformer")


@pytest.mark.parametrize("layout", ["1x1", "1x1-1x1", "1x1-3x3-1x1"])
def test_a_connector_on_a_vector(tmp_path: Path, teacher: dict, layout: str) -> None:
    """A head that connects maps, behind a neck that pools them."""
    model = classifier(
        head=connector_head(connector=dict(type="mmkd.ConvConnector", layout=layout))
    )
    model["neck"] = dict(type="GlobalAveragePooling")
    text = refused(tmp_path, teacher, model, dict(map=SIMKD_TERM), inherit=INHERIT)
    holds(text, "ConvConnector takes a map [N, 4, H, W], got (1, 4)", "LinearProjector")


@pytest.mark.parametrize("layout", ["1x1", "1x1-1x1", "1x1-3x3-1x1"])
def test_a_connector_as_the_projector_of_a_vector(
    tmp_path: Path, teacher: dict, layout: str
) -> None:
    term = {**SRRL_TERM, "student": "neck"}
    term["projector"] = dict(type="mmkd.ConvConnector", layout=layout)
    config = classifier_config(tmp_path, classifier(), **distill(teacher, dict(srrl=term)))
    with pytest.raises(ValueError) as error:
        train(config)
    holds(str(error.value), "terms.srrl", "ConvConnector takes a map", "(4, 4)", "LinearProjector")


def without_its_head(teacher: dict, folder: Path) -> dict:
    content = torch.load(teacher["checkpoint"])
    content["state_dict"] = {
        k: v for k, v in content["state_dict"].items() if not k.startswith("head.")
    }
    torch.save(content, folder / "headless.pth")
    return dict(teacher, checkpoint=str(folder / "headless.pth"))


@pytest.mark.parametrize("method", ["simkd", "srrl"])
def test_a_checkpoint_without_the_classifier(tmp_path: Path, teacher: dict, method: str) -> None:
    """The teacher's classifier does not run, and yet its weights are needed."""
    model, terms, settings = METHODS[method]
    headless = without_its_head(teacher, tmp_path)
    text = refused(tmp_path, headless, model(), terms, **settings)
    key = "inherit.head.fc" if method == "simkd" else "terms.srrl.teacher_classifier"
    holds(text, key, "headless.pth", "head.fc.weight is missing", "head.fc.bias is missing")
    # Where nothing needs it, nothing is missed.
    train(classifier_config(tmp_path, classifier(), **distill(headless, dict(f=LOGSUM_TERM))))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (dict(teacher_classifier="head.fcc"), ("teacher_classifier", "no module 'head.fcc'")),
        (dict(teacher_classifier="head"), ("must be a linear layer", "LinearClsHead")),
        (dict(teacher_classifier="backbone.conv"), ("must be a linear layer", "Conv2d")),
        (dict(teacher_classifier=None), ("SoftmaxRegressionLoss needs teacher_classifier",)),
        (
            dict(student_classifier="head.fc"),
            ("student_classifier is given, but SoftmaxRegressionLoss takes none",),
        ),
        (
            dict(loss=dict(type="mmkd.MSELoss")),
            ("teacher_classifier is given, but MSELoss takes none",),
        ),
        (
            dict(
                student="head.fc",
                teacher="head.fc",
                projector=dict(type="mmkd.IdentityProjector"),
            ),
            ("takes 6 channels, the teacher's feature has 3", "tap what it classifies"),
        ),
    ],
)
def test_srrl_s_classifier(tmp_path: Path, teacher: dict, change: dict, parts: tuple) -> None:
    term = {**SRRL_TERM, **change}
    text = refused(tmp_path, teacher, classifier(), dict(srrl=term))
    holds(text, "terms.srrl", *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (dict(student_classifier=None), ("JointClassifierLoss needs student_classifier",)),
        (dict(student_classifier="head.cf"), ("student_classifier", "no module 'head.cf'")),
        (
            dict(teacher_classifier="head.fc"),
            ("teacher_classifier is given, but JointClassifierLoss takes none",),
        ),
    ],
)
def test_the_joint_classifier(tmp_path: Path, teacher: dict, change: dict, parts: tuple) -> None:
    model = classifier(head=connector_head(freeze_classifier=False))
    terms = dict(joint={**JOINT_TERM, **change})
    text = refused(tmp_path, teacher, model, terms, inherit=INHERIT)
    holds(text, "terms.joint", *parts)


def test_a_frozen_joint_classifier(tmp_path: Path, teacher: dict) -> None:
    model = classifier(head=connector_head())
    text = refused(tmp_path, teacher, model, dict(joint=JOINT_TERM), inherit=INHERIT)
    holds(text, "terms.joint", "is frozen", "freeze_classifier=False")


def test_labels_of_locations(tmp_path: Path, teacher: dict) -> None:
    """A joint classifier on every location of a map: the images' labels are too few."""
    model = classifier(head=connector_head(freeze_classifier=False))
    terms = dict(joint={**JOINT_TERM, "view": "dense"})
    config = classifier_config(tmp_path, model, **distill(teacher, terms, inherit=INHERIT))
    with pytest.raises(ValueError) as error:
        train(config)
    holds(str(error.value), "terms.joint", "a label for each of 64 samples, got 4", "'global'")


def test_a_model_without_labels(tmp_path: Path, teacher: dict) -> None:
    model = classifier(head=connector_head(freeze_classifier=False))
    config = classifier_config(
        tmp_path, model, **distill(teacher, dict(joint=JOINT_TERM), inherit=INHERIT)
    )
    runner = Runner.from_cfg(config)

    def without_labels(module: nn.Module, args: tuple, kwargs: dict) -> None:
        # After the model has computed its losses, before the hook looks.
        for sample in kwargs["data_samples"]:
            del sample.gt_label

    runner.model.register_forward_hook(
        lambda module, args, kwargs, output: without_labels(module, args, kwargs),
        with_kwargs=True,
    )
    with pytest.raises(ValueError) as error:
        runner.train()
    holds(str(error.value), "DistillHook terms.joint", "hold no gt_label")


def test_boxes_of_images_that_have_none(tmp_path: Path, teacher: dict) -> None:
    term = dict(loss=dict(type="mmkd.FGDLoss"))
    config = classifier_config(tmp_path, classifier(), **distill(teacher, dict(boxes=term)))
    begun: list[Runner] = []
    with pytest.raises(ValueError) as error:
        train(config, Probe(before_train=begun.append))
    holds(str(error.value), "DistillHook terms.boxes", "hold no gt_instances")
    assert not begun


@pytest.mark.parametrize(
    ("tokens", "parts"),
    [
        (dict(student_extra_tokens=1), ("no 1 extra tokens", "(4, 4, 4, 4)")),
        (dict(teacher_extra_tokens=2), ("no 2 extra tokens", "(4, 6, 4, 4)")),
    ],
)
def test_extra_tokens_of_a_map(tmp_path: Path, teacher: dict, tokens: dict, parts: tuple) -> None:
    config = classifier_config(
        tmp_path, classifier(), **distill(teacher, dict(feature={**LOGSUM_TERM, **tokens}))
    )
    with pytest.raises(ValueError) as error:
        train(config)
    holds(str(error.value), "terms.feature", *parts)


def test_patch_tokens_without_class_and_distillation_token(tmp_path: Path, teacher: dict) -> None:
    """The mean of the patch tokens, as Miles & Mikolajczyk distil DeiT."""
    term = dict(student="backbone.ln1", student_extra_tokens=2, view="global")
    seen: list[Tensor] = []
    tapped: list[Tensor] = []

    def watch(runner: Runner) -> None:
        projector = distill_hook_of(runner).distillers["feature"].projector
        projector.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        runner.model.backbone.ln1.register_forward_hook(lambda m, a, out: tapped.append(out))

    config = classifier_config(tmp_path, tiny_deit(), **distill(teacher, dict(feature=term)))
    train(config, Probe(before_train=watch))
    assert tapped[0].shape == (4, 2 + 4, 8)
    for tokens, samples in zip(tapped, seen, strict=True):
        torch.testing.assert_close(samples, sum(tokens[:, i] for i in range(2, 6)) / 4)
