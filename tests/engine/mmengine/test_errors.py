"""A user's mistake stops the run with the setting, what was found and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, DATASETS

from helpers.toy import VALIDATION, Probe, ToyImages, distill, toy_config, train, write_teacher
from mmkd import DistillHook
from mmkd.errors import SettingError

TEACHER = dict(config="teacher.py", checkpoint="teacher.pth")


def check(error: pytest.ExceptionInfo, *parts: str) -> None:
    missing = [part for part in parts if part not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"


# On construction --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind", "parts"),
    [
        (dict(teacher=None), TypeError, ("teacher", "dict(config=..., checkpoint=...)", "None")),
        (dict(teacher={}), TypeError, ("teacher", "dict(config=..., checkpoint=...)")),
        (
            dict(teacher=dict(config="teacher.py")),
            ValueError,
            ("teacher.checkpoint: it is missing", ".pth or .safetensors"),
        ),
        (
            dict(teacher=dict(config="t.py", checkpoint=None)),
            ValueError,
            ("teacher.checkpoint: it is missing",),
        ),
        (
            dict(teacher=dict(checkpoint="t.pth")),
            ValueError,
            ("teacher", "either 'config' or 'model'"),
        ),
        (
            dict(teacher=dict(TEACHER, model=dict(type="ToyModel"))),
            ValueError,
            ("teacher", "either 'config' or 'model'"),
        ),
        (
            dict(teacher=dict(config="t.py", checkpont="t.pth")),
            ValueError,
            ("teacher", "'checkpont'", "did you mean 'checkpoint'?"),
        ),
        (
            dict(teacher=dict(a=TEACHER, b=dict(config="b.py"))),
            ValueError,
            ("teacher.b.checkpoint: it is missing",),
        ),
        (
            dict(teacher=dict(a=TEACHER, b=TEACHER), terms=dict(one=dict(source="a"))),
            ValueError,
            ("teacher.b", "no term has source='b'"),
        ),
        (
            dict(teacher=dict(a=TEACHER, b=TEACHER), terms=dict(one=dict())),
            ValueError,
            ("terms.one.source", "'a', 'b'", "None"),
        ),
        (dict(terms={}), ValueError, ("terms is empty", "leave it out")),
        (dict(terms=[dict()]), TypeError, ("terms must be a dict",)),
        (dict(terms=dict(one=3)), TypeError, ("terms.one must be a dict", "3")),
        (
            dict(terms=dict(one=dict(wieght=1))),
            ValueError,
            ("terms.one", "'wieght'", "did you mean 'weight'?"),
        ),
        (
            dict(terms=dict(one=dict(schedule=dict(beginn=1)))),
            ValueError,
            ("terms.one.schedule", "'beginn'", "did you mean 'begin'?"),
        ),
        (
            dict(terms=dict(one=dict(schedule=dict(begin=3, end=2)))),
            ValueError,
            ("terms", "end must come after begin", "begin=3, end=2"),
        ),
        (
            dict(terms=dict(one=dict(schedule=dict(ramp=-1)))),
            ValueError,
            ("terms", "must be 0 or more", "ramp=-1"),
        ),
        (dict(terms=dict(one=dict(level=[]))), ValueError, ("terms.one.level is empty",)),
        (
            dict(terms=dict(my_loss=dict())),
            ValueError,
            ("terms", "'my_loss'", "objective", "another name"),
        ),
        (dict(terms={"a.b": dict()}), ValueError, ("terms", "'a.b'", "another name")),
        (dict(terms=dict(keys=dict())), ValueError, ("terms", "'keys'", "another name")),
        (dict(terms=dict(training=dict())), ValueError, ("terms", "'training'", "another name")),
        (dict(terms=dict(one=dict(level=[0, 0]))), ValueError, ("terms", "'one_0'")),
        (
            dict(terms=dict(one=dict(weight=dict(share=1)))),
            ValueError,
            ("terms.one.weight: share must be from 0 to less than 1, got 1",),
        ),
        (
            dict(terms=dict(one=dict(weight=dict(shares=0.3)))),
            ValueError,
            ("terms.one.weight has no key 'shares'", "did you mean 'share'?"),
        ),
        (
            dict(terms=dict(one=dict(weight="0.3"))),
            ValueError,
            ("terms.one.weight must be a number or dict(share=...), got '0.3'",),
        ),
        *(
            (dict(terms={name: dict()}), ValueError, ("terms", repr(name), "another name"))
            for name in ("ratio", "weight_one", "share_one")
        ),
    ],
)
def test_settings(settings: dict, kind: type[Exception], parts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as error:
        DistillHook(**{"teacher": TEACHER, **settings})
    check(error, "DistillHook", *parts)


# Before the first iteration ---------------------------------------------------------------


def started(*args: Any) -> None:
    raise AssertionError("training began")


def fail(
    folder: Path, teacher: dict, terms: Any = None, *, kind: type[Exception], **settings: Any
) -> pytest.ExceptionInfo:
    """The error of a run that must end before its first iteration."""
    config = toy_config(folder, **distill(teacher, terms), **settings)
    with pytest.raises(kind) as error:
        train(config, Probe(before_train=started))
    assert isinstance(error.value, kind) and isinstance(error.value, SettingError)
    assert error.value.setting and error.value.setting in str(error.value)
    return error


def test_missing_checkpoint(tmp_path: Path, teacher: dict) -> None:
    missing = dict(teacher, checkpoint="no/such/teacher.pth")
    error = fail(tmp_path, missing, kind=FileNotFoundError)
    check(error, "DistillHook teacher.checkpoint", "no/such/teacher.pth")


def test_one_of_several_checkpoints_is_missing(tmp_path: Path, teacher: dict) -> None:
    several = dict(good=teacher, bad=dict(teacher, checkpoint="no/such/teacher.pth"))
    error = fail(tmp_path, several, kind=FileNotFoundError)
    check(error, "DistillHook teacher.bad.checkpoint", "no/such/teacher.pth")


@pytest.mark.parametrize(
    "config", ["no/such/config.py", "mmdet::no/such/config.py", "nopackage::config.py", "file.txt"]
)
def test_wrong_config_path(tmp_path: Path, teacher: dict, config: str) -> None:
    error = fail(tmp_path, dict(teacher, config=config), kind=ValueError)
    check(error, "DistillHook teacher.config", repr(config), "'package::path'")


def test_config_without_a_model(tmp_path: Path, teacher: dict) -> None:
    (tmp_path / "empty.py").write_text("max_epochs = 3\n")
    config = str(tmp_path / "empty.py")
    check(
        fail(tmp_path, dict(teacher, config=config), kind=ValueError),
        "DistillHook teacher.config",
        config,
        "no model",
    )


def change(teacher: dict, folder: Path, edit: Callable[[dict], Any]) -> dict:
    """The teacher with weights that ``edit`` has changed."""
    weights = torch.load(teacher["checkpoint"])["state_dict"]
    edit(weights)
    torch.save(dict(state_dict=weights), folder / "changed.pth")
    return dict(teacher, checkpoint=str(folder / "changed.pth"))


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda weights: weights.pop("backbone.conv2.weight"), "conv2.weight is missing"),
        (lambda weights: weights.pop("backbone.bn1.running_var"), "bn1.running_var is missing"),
        (
            lambda weights: weights.update({"backbone.conv1.weight": torch.zeros(8, 3, 3, 3)}),
            "conv1.weight is (8, 3, 3, 3) in the file, (6, 3, 3, 3) in the model",
        ),
        (
            lambda weights: weights.update({"backbone.conv3.weight": torch.zeros(8, 3, 3, 3)}),
            "backbone.conv3.weight has no place",
        ),
    ],
)
def test_partly_loadable(
    tmp_path: Path, teacher: dict, edit: Callable[[dict], Any], found: str
) -> None:
    error = fail(tmp_path, change(teacher, tmp_path, edit), kind=ValueError)
    check(error, "DistillHook teacher.checkpoint", "changed.pth", found, "Give the checkpoint")


def test_parts_that_do_not_run_may_be_missing(tmp_path: Path, teacher: dict) -> None:
    without_head = change(teacher, tmp_path, lambda weights: weights.pop("head.weight"))
    train(toy_config(tmp_path, **distill(without_head), **{"train_cfg.max_epochs": 1}))


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_no_such_tap(tmp_path: Path, teacher: dict, side: str) -> None:
    terms = dict(one={side: "backbone.conv3"})
    error = fail(tmp_path, teacher, terms, kind=ValueError)
    check(
        error,
        f"DistillHook terms.one.{side}",
        "ToyModel has no module 'backbone.conv3'",
        "Close matches",
        "backbone.conv1",
        "backbone.conv2",
        "top-level modules",
    )


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("level", [2, -3, "c5"])
def test_no_such_level(tmp_path: Path, teacher: dict, side: str, level: Any) -> None:
    error = fail(tmp_path, teacher, dict(one={f"{side}_level": level}), kind=ValueError)
    check(error, f"DistillHook terms.one.{side}", f"level {level!r}", "2 outputs")


def test_a_feature_of_the_wrong_rank(tmp_path: Path, teacher: dict) -> None:
    error = fail(
        tmp_path,
        teacher,
        dict(one=dict(student="volume")),
        kind=ValueError,
        model=dict(type="ToyVolume"),
    )
    check(error, "DistillHook terms.one.student", "[N, C, H, W]", "shape (1, 2, 4, 8, 8)")


def test_a_tap_that_does_not_run(tmp_path: Path, teacher: dict) -> None:
    error = fail(tmp_path, teacher, dict(one=dict(student="data_preprocessor")), kind=RuntimeError)
    check(error, "DistillHook", "student", "'data_preprocessor' did not run")


@pytest.mark.parametrize(
    ("part", "parts"),
    [
        (dict(weight=-1.0), ("weight must be 0 or more", "-1.0")),
        (dict(weight=float("nan")), ("weight must be 0 or more", "nan")),
        (dict(view="locl"), ("view must be one of", "'dense'", "'locl'")),
        (dict(projector=dict(type="mmkd.LinearProjektor")), ("'mmkd.LinearProjektor'",)),
        (dict(projector=dict(out_channels=3)), ("'type'",)),
        (
            dict(projector=dict(type="mmkd.ConvConnector", layout="5x5")),
            ("layout must be one of", "'5x5'"),
        ),
        (dict(loss=dict(type="mmkd.LogSumLoss", alpha=0.5)), ("alpha", "0.5")),
        (
            dict(normalizer=dict(type="mmkd.GroupNormalizer", num_groups=5)),
            ("num_groups 5", "12 channels"),
        ),
    ],
)
def test_parts(tmp_path: Path, teacher: dict, part: dict, parts: tuple[str, ...]) -> None:
    check(fail(tmp_path, teacher, dict(one=part), kind=ValueError), "DistillHook terms.one", *parts)


def test_shares_that_leave_nothing_to_the_task(tmp_path: Path, teacher: dict) -> None:
    half = dict(weight=dict(share=0.5))
    terms = dict(one=half, two=half, other=dict(half, level=0), fixed=dict(weight=3.0))
    error = fail(tmp_path, teacher, terms, kind=ValueError)
    check(error, "DistillHook terms: the shares of one, two, at the same feature", "come to 1,")


def test_several_optimizers(tmp_path: Path, teacher: dict) -> None:
    config = toy_config(tmp_path, **distill(teacher))
    config.optim_wrapper = dict(constructor="SeveralOptimizers", optimizer=dict(type="SGD", lr=0.1))
    with pytest.raises(ValueError) as error:
        train(config)
    check(error, "DistillHook", "optim_wrapper", "several optimizers", "expected one")


def test_several_hooks(tmp_path: Path, teacher: dict) -> None:
    config = toy_config(tmp_path, **distill(teacher))
    config.custom_hooks = config.custom_hooks * 2
    with pytest.raises(ValueError) as error:
        train(config)
    check(error, "DistillHook", "custom_hooks", "expected one with all terms")


def test_schedules_that_cannot_be_joined(tmp_path: Path, teacher: dict) -> None:
    from mmengine.runner import Runner

    config = toy_config(tmp_path, **distill(teacher))
    runner = Runner(
        model=config.model,
        work_dir=config.work_dir,
        train_dataloader=config.train_dataloader,
        train_cfg=config.train_cfg,
        optim_wrapper=config.optim_wrapper,
        param_scheduler=dict(type="ConstantLR", factor=0.5),
        custom_hooks=config.custom_hooks,
        experiment_name=config.experiment_name,
    )
    with pytest.raises(ValueError) as error:
        runner.train()
    check(error, "DistillHook", "param_scheduler is missing", "Runner.from_cfg(cfg)")


def test_resuming_a_plain_run(tmp_path: Path, teacher: dict) -> None:
    plain = train(toy_config(tmp_path))
    file = str(Path(plain.work_dir) / "epoch_1.pth")
    error = fail(tmp_path, teacher, kind=ValueError, load_from=file, resume=True)
    check(error, "DistillHook", "written without distillation", "load_from", "remove the hook")


def test_resuming_with_other_terms(tmp_path: Path, teacher: dict) -> None:
    run = train(toy_config(tmp_path, **distill(teacher)))
    file = str(Path(run.work_dir) / "epoch_1.pth")
    terms = dict(backbone=dict(), more=dict(level=0))
    error = fail(tmp_path, teacher, terms, kind=RuntimeError, load_from=file, resume=True)
    check(error, "DistillHook terms", "resumed", "more.projector.linear.weight")


# In the first iterations ------------------------------------------------------------------


def break_down(config: Config, kind: type[Exception], iteration: int = 0) -> pytest.ExceptionInfo:
    """The error of a run in its given iteration."""
    done: list[int] = []
    with pytest.raises(kind) as error:
        train(config, Probe(after_train_iter=lambda runner: done.append(runner.iter)))
    assert len(done) == iteration
    return error


def test_a_term_that_does_not_fire(tmp_path: Path, teacher: dict) -> None:
    config = toy_config(tmp_path, model=dict(type="ToyBypass"), **distill(teacher))
    error = break_down(config, RuntimeError)
    check(error, "DistillHook", "'backbone'", "did not fire", "ToyBypass", "forward(mode='loss')")


def test_one_sample_a_batch(tmp_path: Path, teacher: dict) -> None:
    config = toy_config(tmp_path, **distill(teacher, dict(one=dict(view="global"))))
    config.train_dataloader.batch_size = 1
    error = break_down(config, ValueError)
    check(
        error, "DistillHook terms.one.view", "every batch holds 1 image", "set another", "'dense'"
    )


def test_nan_in_the_teacher(tmp_path: Path, teacher: dict) -> None:
    broken = change(teacher, tmp_path, lambda w: w["backbone.conv1.weight"].fill_(torch.nan))
    error = break_down(toy_config(tmp_path, **distill(broken)), RuntimeError)
    check(error, "DistillHook terms.backbone", "teacher's feature 'backbone'", "checkpoint")


def freeze(runner: Any) -> None:
    runner.model.backbone.requires_grad_(False)


@pytest.mark.parametrize("begin", [0, 3])
def test_a_frozen_student(tmp_path: Path, teacher: dict, begin: int) -> None:
    """Found in a term's own first iterations, whenever they come."""
    terms = dict(
        neck=dict(student="neck", teacher="neck"),
        backbone=dict(schedule=dict(begin=begin)),
    )
    config = toy_config(tmp_path, **distill(teacher, terms), **{"train_cfg.max_epochs": 5})
    done: list[int] = []
    probe = Probe(before_run=freeze, after_train_iter=lambda runner: done.append(runner.iter))
    with pytest.raises(RuntimeError) as error:
        train(config, probe)
    assert len(done) == 4 * begin
    check(error, "DistillHook terms.backbone", "'backbone' has no gradient", "frozen")


def test_a_student_that_diverged(tmp_path: Path, teacher: dict) -> None:
    def diverge(runner: Any) -> None:
        runner.model.backbone.conv1.weight.data.fill_(torch.inf)

    with pytest.raises(RuntimeError) as error:
        train(toy_config(tmp_path, **distill(teacher)), Probe(before_train=diverge))
    check(error, "DistillHook terms.backbone", "distance is nan", "student's feature")


def test_a_distance_that_stays_at_zero(tmp_path: Path) -> None:
    """The student starts from the teacher's weights, and nothing moves."""
    teacher = write_teacher(tmp_path)
    terms = dict(
        same=dict(
            projector=dict(type="torch.nn.Identity"),
            normalizer=dict(type="mmkd.IdentityNormalizer"),
            loss=dict(type="mmkd.L2Loss"),
        )
    )
    config = toy_config(
        tmp_path,
        model=dict(type="ToyModel", width=6, norm_eval=True),
        load_from=teacher["checkpoint"],
        **distill(teacher, terms),
        **{"train_cfg.max_epochs": 5},
    )
    config.optim_wrapper.optimizer = dict(type="SGD", lr=0.0)
    error = break_down(config, RuntimeError, iteration=9)
    check(error, "DistillHook terms.same", "stayed at 0 for 10 iterations")


def test_errors_carry_no_doubled_prefix(tmp_path: Path, teacher: dict) -> None:
    missing = dict(teacher, checkpoint="no/such/teacher.pth")
    error = fail(tmp_path, missing, kind=FileNotFoundError, **VALIDATION)
    assert len(re.findall("DistillHook", str(error.value))) == 1


def test_a_last_batch_of_one_is_found_before_training(tmp_path: Path, teacher: dict) -> None:
    settings = distill(teacher, dict(one=dict(view="global")))
    settings["train_dataloader.dataset.length"] = 17  # batches of 4
    with pytest.raises(ValueError, match=r"terms\.one\.view: .* 1 of 17 images.*drop_last=True"):
        train(toy_config(tmp_path, **settings))
    train(toy_config(tmp_path, **settings, **{"train_dataloader.drop_last": True}))


@DATASETS.register_module()
class Framed(ToyImages):
    """Tells its images' shapes, by which batches are grouped: five tall ones of eight."""

    def get_data_info(self, index: int) -> dict[str, int]:
        return dict(width=8, height=16) if index % 8 < 5 else dict(width=16, height=8)


@pytest.mark.parametrize("length", [16, 17, 18])
def test_a_last_batch_of_one_of_images_grouped_by_shape(
    tmp_path: Path, teacher: dict, length: int
) -> None:
    settings = distill(teacher, dict(one=dict(view="global")))
    config = toy_config(tmp_path, **settings, **{"train_cfg.max_epochs": 1})
    config.train_dataloader.dataset = dict(type="Framed", length=length)
    config.train_dataloader.batch_sampler = dict(type="mmdet.AspectRatioBatchSampler")
    if length == 17:
        with pytest.raises(ValueError, match=r"one\.view: .* 1 of 17 images.*drop_last=True"):
            train(config.copy())
        config.train_dataloader.batch_sampler.drop_last = True
    config.experiment_name += "again"
    train(config)


@DATA_SAMPLERS.register_module()
class Pairs:
    """Batches of two, of which nothing else is told."""

    def __init__(self, sampler: Any, batch_size: int) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([0, 1], [2, 3])

    def __len__(self) -> int:
        return 2


def test_batches_that_are_not_known(tmp_path: Path, teacher: dict) -> None:
    settings = distill(teacher, dict(one=dict(view="global")))
    config = toy_config(tmp_path, **settings, **{"train_cfg.max_epochs": 1})
    config.train_dataloader.batch_sampler = dict(type="Pairs")
    runner = train(config)
    log = next(Path(runner.work_dir).rglob("*.log")).read_text()
    assert "terms.one needs two images in every batch, and those of Pairs are not known" in log
