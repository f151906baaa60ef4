"""The doctor names what is planted, and leaves a healthy distillation alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from rich.console import Console
from typer.testing import CliRunner

from helpers.classifier_toy import TEACHER_WIDTH, classifier_config, linear_head, write_classifier
from helpers.classifier_toy import VALIDATION as CLASSIFIER_VALIDATION
from helpers.classifier_toy import distill as distill_classifier
from helpers.detector import detector_config, write_detector_teacher
from helpers.toy import (
    PREPROCESSOR,
    Probe,
    ToyModel,
    distill,
    distill_hook_of,
    toy_config,
    train,
    write_teacher,
)
from mmkd.cli import app
from mmkd.data import make_digits
from mmkd.doctor import Advice, Examination, advise
from mmkd.doctor.file import read_examination
from mmkd.doctor.terminal import print_examination, print_levels
from mmkd.engine.mmengine.spread_images import spread_batch
from mmkd.errors import InputError
from mmkd.runs.mmengine.doctor import examine, examine_levels

TERMS = dict(deep=dict(weight=dict(share=0.4)), fine=dict(level=0, weight=0.01))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A teacher that knows the toy's three classes."""
    folder = tmp_path_factory.mktemp("trained")
    config = toy_config(folder, model=dict(type="ToyModel", width=6, dropout=0.0))
    config.train_cfg.max_epochs = 12
    config.default_hooks.checkpoint.interval = 12
    work_dir = Path(train(config).work_dir)
    plain = Config(dict(default_scope="mmengine", model=config.model))
    plain.dump(folder / "teacher.py")
    return dict(config=str(folder / "teacher.py"), checkpoint=str(work_dir / "epoch_12.pth"))


def look(folder: Path, teacher: dict, terms: Any = TERMS, **changes: Any) -> Examination:
    return examine(toy_config(folder, **distill(teacher, terms), **changes), iterations=3)


def errors(found: Examination) -> list[Advice]:
    return [each for each in advise(found) if each.level == "error"]


def test_a_healthy_distillation(tmp_path: Path, trained: dict) -> None:
    found = look(tmp_path, trained)
    assert not errors(found), advise(found)
    deep, fine = found.terms
    assert (deep.name, fine.name) == ("deep", "fine")
    assert deep.student_shapes == ((4, 8, 4, 4),)
    assert deep.teacher_shapes == ((4, 12, 4, 4),)
    # Every location is a sample.
    assert deep.samples == 4 * 4 * 4
    assert deep.is_balanced and not fine.is_balanced
    assert deep.share == pytest.approx(0.4, abs=0.25)
    assert fine.weight == pytest.approx(0.01)
    assert all(-1 <= term.cosine <= 1 and term.distance > 0 for term in found.terms)
    assert deep.active == fine.active == 1
    [teacher] = found.teachers
    assert teacher.loss < 0.5 * found.student_loss
    assert teacher.parameters > found.student_parameters > 0
    assert found.iterations == 8
    assert found.distilled.seconds > 0
    # Of the process: torch and the Runner alone are more than 100 MiB.
    assert 100 * 2**20 < found.plain.peak_bytes <= found.distilled.peak_bytes
    assert 0 < found.teacher_share < 1
    # Nothing of the user's is written.
    assert list(tmp_path.iterdir()) == []


def test_the_loss_is_the_teachers_own(tmp_path: Path, trained: dict) -> None:
    """By the teacher's own model, on the first batch."""
    found = look(tmp_path, trained)
    wide = dict(type="ToyModel", width=6, dropout=0.0)
    runner = Runner.from_cfg(toy_config(tmp_path, model=wide))
    model = runner.model.eval()
    model.load_state_dict(torch.load(trained["checkpoint"], weights_only=False)["state_dict"])
    with torch.no_grad():
        first = model.data_preprocessor(next(iter(runner.train_dataloader)), True)
        expected, _ = model.parse_losses(model(**first, mode="loss"))
    assert found.teachers[0].loss == pytest.approx(float(expected), rel=1e-3)


def own(trained: dict, **images: Any) -> dict:
    """The trained teacher, with what is said of its images."""
    stated = {key: PREPROCESSOR[key] for key in ("mean", "std")}
    return {**trained, **stated, **images}


LONG = {"train_cfg.max_epochs": 200}
FAULTS: dict[str, tuple[Any, Any, dict[str, Any], str, str]] = {
    "wrong order": (
        lambda t: own(t, order="bgr"), TERMS, {}, "teacher", "given images of another kind",
    ),
    "wrong scale": (
        lambda t: own(t, mean=[0.0] * 3, std=[1.0] * 3, order="student"),
        TERMS, {}, "teacher", "given images of another kind",
    ),
    "untrained teacher": (None, TERMS, {}, "teacher", "it is not trained, or on other data"),
    "40 times the task": (
        lambda t: t, dict(deep=dict(weight=1e4)), {}, "terms.deep.weight", "times the task's",
    ),
    "few samples": (
        lambda t: t, dict(deep=dict(view="global", weight=0.1)), {}, "terms.deep",
        "sees 4 samples a batch",
    ),
    "40 times the task, later": (
        lambda t: t, dict(deep=dict(weight=1e4, schedule=dict(begin=100, ramp=9))), LONG,
        "terms.deep.weight", "times the task's",
    ),
    "few samples, later": (
        lambda t: t, dict(deep=dict(view="global", weight=0.1, schedule=dict(begin=100))), LONG,
        "terms.deep", "sees 4 samples a batch",
    ),
    "never on": (
        lambda t: t, dict(deep=dict(schedule=dict(begin=50))), {}, "terms.deep.schedule",
        "never on in this training",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults(tmp_path: Path, trained: dict, fault: str) -> None:
    make, terms, changes, about, text = FAULTS[fault]
    teacher = write_teacher(tmp_path) if make is None else make(trained)
    (tmp_path / "runs").mkdir()
    found = look(tmp_path / "runs", teacher, terms, **changes)
    named = [each for each in errors(found) if each.about == about]
    assert any(text in each.text for each in named), advise(found)


def test_a_loop_of_iterations(tmp_path: Path, trained: dict) -> None:
    """Its schedules count epochs by the length of the data set, here 4 iterations."""
    terms = dict(deep=dict(weight=0.1, schedule=dict(begin=1, end=2)))
    config = toy_config(tmp_path, **distill(trained, terms))
    config.train_dataloader.sampler = dict(type="InfiniteSampler")
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=16)
    found = examine(config, iterations=6)
    assert found.iterations == 16
    assert found.terms[0].active == pytest.approx(1 / 4)


def test_beside_a_recorder_and_with_a_teacher_that_follows(tmp_path: Path, trained: dict) -> None:
    config = toy_config(tmp_path, **distill(dict(ema=0.9), dict(deep=dict(weight=0.1))))
    config.custom_hooks.append(dict(type="mmkd.DynamicsHook"))
    found = examine(config, iterations=2)
    assert not errors(found), advise(found)
    assert found.teachers[0].loss is None
    # A student that is no longer untrained says nothing of its teacher.
    config = toy_config(tmp_path, **distill(trained, dict(deep=dict(weight=0.1))))
    config.load_from = trained["checkpoint"]
    config.model.width = 6
    assert examine(config, iterations=2).student_loss is None


def test_where_nothing_of_the_task_arrives(tmp_path: Path, trained: dict) -> None:
    """No share of nothing, and JSON of no NaN."""
    config = toy_config(tmp_path, **distill(trained, dict(deep=dict(weight=0.1))))
    config.model.type = "ToyIdle"
    found = examine(config, iterations=2)
    assert found.terms[0].share is None and found.terms[0].cosine is None
    assert not [each for each in advise(found) if each.about.startswith("terms.deep")]


@MODELS.register_module()
class ToyIdle(ToyModel):
    """Whose losses are all 0."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)
        if kwargs.get("mode") == "loss":
            return dict(loss_cls=0 * found["loss_cls"])
        return found


def test_a_student_larger_than_its_teacher(tmp_path: Path, trained: dict) -> None:
    found = look(tmp_path, trained, model=dict(type="ToyModel", width=16))
    [warning] = [each for each in advise(found) if each.about == "teacher"]
    assert warning.level == "warning" and "are they swapped?" in warning.text


def test_a_frozen_stage_and_a_missing_hook(tmp_path: Path, trained: dict) -> None:
    config = toy_config(tmp_path, **distill(trained, dict(deep=dict())))
    freeze = Probe(before_train=lambda r: r.model.backbone.requires_grad_(False))
    config.custom_hooks.append(freeze)
    with pytest.raises(RuntimeError, match=r"terms\.deep: .* has no gradient"):
        examine(config, iterations=1)
    with pytest.raises(InputError, match="has no DistillHook to look at"):
        examine(toy_config(tmp_path), iterations=1)


def test_the_command(tmp_path: Path, trained: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toy_config(tmp_path / "work", **distill(trained, TERMS)).dump(tmp_path / "pair.py")
    done = CliRunner().invoke(app, ["doctor", "pair.py", "--iterations", "2"])
    assert done.exit_code == 0, done.output
    for part in ("deep", "A step:", "its own loss here", "Nothing to change."):
        assert part in done.output
    # Never on, which is an error.
    late = "custom_hooks.0.terms.deep.schedule.begin=99"
    done = CliRunner().invoke(app, ["doctor", "pair.py", "--iterations", "2", "--json", "-o", late])
    assert done.exit_code == 1, done.output
    content = json.loads(done.stdout[done.stdout.index("{") :])
    assert content["advice"][0]["about"] == "terms.deep.schedule"
    assert content["terms"][0]["active"] == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["pair.py"]
    # Kept where the training will be.
    brief = ["doctor", "pair.py", "--iterations", "1", "--out", "work/run"]
    done = CliRunner().invoke(app, brief)
    assert done.exit_code == 0, done.output
    found = read_examination(tmp_path / "work/run")
    assert found is not None and [term.name for term in found.terms] == ["deep", "fine"]
    done = CliRunner().invoke(app, [*brief, "--levels"])
    assert done.exit_code == 2 and "leave out --levels" in done.output
    done = CliRunner().invoke(app, ["doctor", "pair.py", "--out", "pair.py"])
    assert done.exit_code == 2 and "expected a file in a folder" in done.output
    done = CliRunner().invoke(app, ["doctor", "nowhere.py"])
    assert done.exit_code == 2 and "mmkd doctor: " in done.output


def test_what_people_read(tmp_path: Path, trained: dict) -> None:
    found = look(tmp_path, trained)
    with (tmp_path / "page.txt").open("w") as file:
        print_examination(found, [], Console(file=file, width=200))
    text = (tmp_path / "page.txt").read_text()
    assert "Nothing to change." in text and "backbone[-1] 4x8x4x4" in text


def test_a_detector_that_is_not_trained_is_named(tmp_path: Path) -> None:
    digits = make_digits(tmp_path / "digits", num_train=16, num_val=4)
    terms = dict(maps=dict(stride="all", weight=dict(share=0.3)))
    config = detector_config(digits, tmp_path, **distill(write_detector_teacher(tmp_path), terms))
    examination = examine(config, iterations=1)
    [teacher] = examination.teachers
    assert teacher.accuracy is not None and teacher.accuracy < 1 and teacher.images > 0
    assert any(
        each.about == "teacher" and "validation images: it is not trained" in each.text
        for each in advise(examination)
    )


def test_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = write_detector_teacher(tmp_path)
    digits = make_digits(tmp_path / "digits", num_train=64, num_val=4)
    found = examine_levels(detector_config(digits, tmp_path, **distill(teacher)))
    assert any(name.startswith("neck") for name in found.student)
    assert any(name.startswith("backbone") for name in found.teacher)
    assert len(found.cka) == len(found.student) == len(found.own) == len(found.leads)
    assert all(len(row) == len(found.teacher) for row in found.cka)
    # Of digits on noise something is known to any feature.
    assert all(each is not None and each < 1 for each in found.student_probe)
    [*_, last] = [found.own[found.student.index(n)] for n in found.student if n.startswith("neck")]
    assert found.teacher[last].startswith("neck")


def test_levels_where_no_objects_are_known(tmp_path: Path, trained: dict) -> None:
    found = examine_levels(toy_config(tmp_path, **distill(trained)))
    assert {name.partition("[")[0] for name in found.student} == {"backbone", "neck"}
    assert set(found.student_probe) == {None} == set(found.leads)
    console = Console(record=True, width=100)
    print_levels(found, console)
    assert "No level of the teacher is known to tell more" in console.export_text()


@pytest.mark.parametrize(("classes", "has_loss"), [(7, True), (2, False)])
def test_a_classifier_of_other_classes(tmp_path: Path, classes: int, has_loss: bool) -> None:
    teacher = write_classifier(tmp_path, head=linear_head(TEACHER_WIDTH, classes))
    terms = dict(feature=dict(view="global", weight=0.1))
    config = classifier_config(
        tmp_path, **CLASSIFIER_VALIDATION, **distill_classifier(teacher, terms)
    )
    found = examine(config, iterations=1)
    assert found.teachers[0].accuracy is None
    assert (found.teachers[0].loss is not None) == has_loss
    [warning] = (each for each in advise(found) if "is not known" in each.text)
    assert (warning.level, warning.about) == ("warning", "teacher")
    assert f"it tells {classes} classes apart, the student 3" in warning.text


def test_a_classifier_s_accuracy(tmp_path: Path) -> None:
    """Top-1 of the images that its own predictions get right."""
    teacher = write_classifier(tmp_path)
    terms = dict(feature=dict(view="global"))
    config = classifier_config(
        tmp_path, **CLASSIFIER_VALIDATION, **distill_classifier(teacher, terms)
    )
    [found] = examine(config, iterations=1).teachers
    runner = Runner.from_cfg(classifier_config(tmp_path / "again", **CLASSIFIER_VALIDATION))
    batch = spread_batch(runner.val_dataloader, runner.model.data_preprocessor, found.images)
    network = distill_hook_of(train(config)).teachers["teacher"].model
    with torch.no_grad():
        predicted = network(batch["inputs"], mode="tensor").argmax(dim=1)
    labels = torch.cat([sample.gt_label for sample in batch["data_samples"]])
    expected = 100 * (predicted == labels).double().mean()
    assert found.accuracy == pytest.approx(float(expected))
    assert found.chance == pytest.approx(100 / 3)
