"""Work dirs of real trainings say what was measured in them; damaged ones say what is left."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.hooks import Hook
from mmengine.runner import Runner

# The toy models and detectors of the engine's tests.
from helpers.detector import TEACHER_CONFIG, detector_config, write_detector_teacher
from helpers.toy import VALIDATION, distill, toy_config, train
from helpers.toy import write_teacher as write_toy_teacher
from mmkd.data import make_digits
from mmkd.errors import InputError
from mmkd.work_dirs import Curve, WorkDir, read_work_dir

STAMP, LATER = "20260101_120000", "20260102_120000"


class Recorder(Hook):
    """What the Runner's hooks get to see, by step."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.losses: dict[int, dict[str, float]] = {}
        self.metrics: dict[int, dict[str, float]] = {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.losses[runner.iter + 1] = {key: float(value) for key, value in outputs.items()}

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        self.metrics[runner.epoch] = dict(metrics)


def points(work: WorkDir, name: str) -> dict[float, float]:
    curve = work.curve(name)
    assert curve is not None, f"{name} is not among {[each.name for each in work.curves]}"
    return dict(curve.points)


# Real trainings of MMEngine ---------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    return make_digits(folder, num_train=12, num_val=4, image_size=64, max_digits=4)


@pytest.fixture(scope="module")
def resumed(digits: Path) -> tuple[Path, Recorder, dict[str, str]]:
    """A distilled detector's work dir, of an epoch of 3 iterations and one more after a stop."""
    teacher = write_detector_teacher(digits)
    recorder = Recorder()
    for epochs, resume in ((1, False), (2, True)):
        hook = dict(type="mmkd.DistillHook", teacher=teacher, terms=dict(last=dict(weight=0.5)))
        config = detector_config(
            digits,
            digits / "runs",
            custom_hooks=[hook],
            log_level="INFO",
            log_processor=dict(type="LogProcessor", window_size=1, by_epoch=True),
            train_cfg=dict(max_epochs=epochs, val_interval=1),
            resume=resume,
            randomness=dict(seed=5),
        )
        config.work_dir = str(digits / "runs/student_seed0")
        config.val_evaluator.outfile_prefix = str(digits / "runs/student_seed0/val")
        train(config, recorder)
        # MMEngine names a session's folder by the second.
        time.sleep(1.1)
    return digits / "runs/student_seed0", recorder, teacher


def test_a_resumed_run_is_one(resumed: tuple[Path, Recorder, dict[str, str]]) -> None:
    folder, recorder, _ = resumed
    assert len(list(folder.glob("*/vis_data/scalars.json"))) == 2
    work = read_work_dir(folder)
    assert (work.framework, work.name, work.seed, work.notes) == ("mmengine", "student", 5, [])
    assert sorted(recorder.losses) == [1, 2, 3, 4, 5, 6]
    for name, group in (
        ("loss_cls", "task loss"),
        ("loss_distill_last", "distillation"),
        ("distill_last", "distillation"),
        ("distill_weight_last", "weight"),
        ("distill_ratio", "ratio"),
    ):
        curve = work.curve(name)
        assert curve is not None and (curve.group, curve.step) == (group, "iteration")
        expected = {step: values[name] for step, values in recorder.losses.items()}
        assert dict(curve.points) == pytest.approx(expected, rel=1e-6)
    task = {step: v["loss"] - v["loss_distill_last"] for step, v in recorder.losses.items()}
    assert points(work, "task_loss") == pytest.approx(task, rel=1e-6)
    shares = work.curve("distill_share_last")
    assert shares is not None and (shares.group, len(shares.points)) == ("share", 6)
    assert all(0 < share < 1 for _, share in shares.points)
    rates = work.curve("lr")
    assert rates is not None and rates.group == "learning rate" and len(rates.points) == 6
    # Not on the model's loss alone: it holds the distillation.
    assert work.curve("loss") is None


def test_scores_are_in_percent_and_by_epoch(
    resumed: tuple[Path, Recorder, dict[str, str]],
) -> None:
    folder, recorder, _ = resumed
    scores = [each for each in read_work_dir(folder).curves if each.group == "score"]
    assert {each.step for each in scores} == {"epoch"}
    for name in ("coco/bbox_mAP", "coco/bbox_mAP_50"):
        [curve] = [each for each in scores if each.name == name]
        expected = {epoch: 100 * found[name] for epoch, found in recorder.metrics.items()}
        assert sorted(expected) == [1, 2]
        assert dict(curve.points) == pytest.approx(expected)
    # No object is as large: MMDetection says -1.
    assert all(found["coco/bbox_mAP_l"] == -1 for found in recorder.metrics.values())
    assert "coco/bbox_mAP_l" not in {each.name for each in scores}
    assert {"time", "data_time"}.isdisjoint(each.name for each in scores)


def test_what_the_run_was_made_of(
    resumed: tuple[Path, Recorder, dict[str, str]], digits: Path
) -> None:
    folder, _, teacher = resumed
    work = read_work_dir(folder)
    digest = hashlib.sha256(Path(teacher["checkpoint"]).read_bytes()).hexdigest()
    assert work.teacher["network"] == "FasterRCNN"
    assert (work.teacher["sha256"], work.teacher["checkpoint"]) == (digest, teacher["checkpoint"])
    assert work.teacher["config"] == str(TEACHER_CONFIG)
    assert work.environment["PyTorch"] == torch.__version__
    assert work.environment["Python"].startswith(sys.version.partition(" ")[0])
    assert {"MMEngine", "CUDA available"} <= set(work.environment)
    assert not {"PyTorch compiling details", "mp_cfg"} & set(work.environment)
    assert work.settings["custom_hooks.0.terms.last.weight"] == 0.5
    assert work.settings["model.backbone.depth"] == 18
    assert work.settings["train_cfg.max_epochs"] == 2
    assert work.detections == folder / "val.bbox.json"
    assert work.annotations == digits / "annotations/val.json"
    assert work.images == digits / "val"
    assert work.checkpoint == folder / "epoch_2.pth"
    assert work.step_seconds is not None and 0 < work.step_seconds < 10
    assert work.parameters is None


def test_the_config_is_read_as_mmengine_reads_it(
    resumed: tuple[Path, Recorder, dict[str, str]],
) -> None:
    from mmengine.config import Config

    from mmkd.work_dirs.dumped_config import read_dumped_config

    [file] = resumed[0].glob("*.py")
    for text in (file.read_text(), Config.fromfile(file).pretty_text):
        assert read_dumped_config(text) == Config.fromfile(file).to_dict()


def test_what_recipes_note_comes_first(
    resumed: tuple[Path, Recorder, dict[str, str]], tmp_path: Path
) -> None:
    folder = shutil.copytree(resumed[0], tmp_path / "other")
    for name in ("truth.json", "detections.bbox.json"):
        (tmp_path / name).write_text("{}")
    shutil.move(tmp_path / "detections.bbox.json", folder)
    noted = dict(
        name="distilled",
        parameters=12,
        training_seconds=3.0,
        iterations=6,
        annotations=str(tmp_path / "truth.json"),
        images=str(tmp_path),
        environment=dict(python="3"),
    )
    (folder / "result.json").write_text(json.dumps(dict(fingerprint="", result=noted)))
    work = read_work_dir(folder)
    assert (work.name, work.parameters, work.environment) == ("distilled", 12, {"python": "3"})
    assert (work.annotations, work.images) == (tmp_path / "truth.json", tmp_path)
    assert work.detections == folder / "detections.bbox.json"


def test_training_dynamics(tmp_path: Path) -> None:
    """Logged once an epoch, beside a validation whose metric is taken as it is."""
    teacher = write_toy_teacher(tmp_path)
    alignment = dict(
        type="mmkd.ClassifierAlignmentHook",
        checkpoint=teacher["checkpoint"],
        student="head",
        teacher="head",
    )
    hooks = distill(teacher)
    hooks["custom_hooks"].append(alignment)
    recorder = Recorder()
    runner = train(toy_config(tmp_path, **VALIDATION, **hooks), recorder)
    work = read_work_dir(runner.work_dir)
    dynamics = [each for each in work.curves if each.group == "dynamics"]
    assert {each.name for each in dynamics} >= {"classifier_distance", "mean_objective"}
    assert all(each.step == "epoch" for each in dynamics)
    objective = {
        epoch: sum(recorder.losses[4 * (epoch - 1) + i]["loss"] for i in (1, 2, 3, 4)) / 4
        for epoch in (1, 2)
    }
    assert points(work, "mean_objective") == pytest.approx(objective, rel=1e-5)
    assert points(work, "accuracy") == {e: v["accuracy"] for e, v in recorder.metrics.items()}


def test_a_plain_run_has_no_teacher(tmp_path: Path) -> None:
    work = read_work_dir(train(toy_config(tmp_path)).work_dir)
    assert work.teacher == {}
    assert {each.group for each in work.curves} == {"task loss", "learning rate"}


# Logs by hand -----------------------------------------------------------------------------


def session(
    folder: Path, stamp: str, lines: Iterable[dict[str, Any] | str], config: str = "a = 1\n"
) -> Path:
    """Writes a call of the Runner into a work dir; its log of scalars."""
    data = folder / stamp / "vis_data"
    data.mkdir(parents=True)
    (data / "config.py").write_text(config)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file = data / "scalars.json"
    file.write_text("".join(f"{text}\n" for text in texts))
    return file


def iteration(step: int, loss: float, **more: float) -> dict[str, float]:
    return dict(loss=loss, loss_cls=loss, **more, iter=step, step=step)


def test_a_resumption_replaces_what_came_after_it(tmp_path: Path) -> None:
    session(tmp_path, STAMP, [iteration(step, 1.0) for step in (10, 20, 30, 40)])
    session(tmp_path, LATER, [iteration(step, 2.0) for step in (25, 35)], "resume = True\n")
    assert points(read_work_dir(tmp_path), "loss_cls") == {10: 1, 20: 1, 25: 2, 35: 2}


def test_a_new_training_in_the_folder_replaces_the_old_one(tmp_path: Path) -> None:
    session(tmp_path, STAMP, [iteration(step, 1.0) for step in (10, 20, 30)])
    session(tmp_path, LATER, [iteration(10, 2.0)], "resume = False\n")
    assert points(read_work_dir(tmp_path), "loss_cls") == {10: 2}


def test_a_test_or_an_early_stop_after_the_training_changes_nothing(tmp_path: Path) -> None:
    session(tmp_path, STAMP, [iteration(10, 1.0), {"coco/bbox_mAP": 0.25, "step": 1}])
    session(tmp_path, LATER, [{"coco/bbox_mAP": 0.5, "step": 0}])
    session(tmp_path, "20260103_120000", [])
    work = read_work_dir(tmp_path)
    assert points(work, "loss_cls") == {10: 1}
    assert points(work, "coco/bbox_mAP") == {1: 25}


def test_metrics_by_iteration(tmp_path: Path) -> None:
    config = "default_hooks = dict(logger=dict(log_metric_by_epoch=False, type='LoggerHook'))\n"
    session(tmp_path, STAMP, [iteration(10, 1.0), {"coco/bbox_mAP": 0.25, "step": 10}], config)
    curve = read_work_dir(tmp_path).curve("coco/bbox_mAP")
    assert curve == Curve("coco/bbox_mAP", "score", "iteration", [(10, 25)])


def test_a_head_whose_only_loss_is_called_loss(tmp_path: Path) -> None:
    """MMPretrain's: the Runner logs it in place of the sum, which distillation would be part of."""
    line = dict(loss=0.5, loss_distill_a=7.0, distill_a=7.0, iter=1, step=1)
    session(tmp_path, STAMP, [line, {"accuracy/top1": 87.5, "step": 1}])
    work = read_work_dir(tmp_path)
    assert points(work, "task_loss") == {1: 0.5}
    assert points(work, "accuracy/top1") == {1: 87.5}


def test_what_a_recipe_scored_without_boxes_is_a_score(tmp_path: Path) -> None:
    """MMEngine logs nothing of a test: the page would say that there is none."""
    session(tmp_path, STAMP, [iteration(step, 2.0) for step in (1, 2)])
    noted = dict(name="distilled", iterations=2, scores=dict(top1=63.2, odd="x", bad=math.nan))
    (tmp_path / "result.json").write_text(json.dumps(dict(result=noted)))
    work = read_work_dir(tmp_path)
    assert work.curves[-1] == Curve("top1", "score", "iteration", [(2, 63.2)])
    assert [curve.name for curve in work.curves if curve.group == "score"] == ["top1"]
    # A detector's are computed from its detections.
    (tmp_path / "detections.bbox.json").write_text("[]")
    assert read_work_dir(tmp_path).curve("top1") is None


def test_step_time_is_the_median_after_the_first(tmp_path: Path) -> None:
    times = [9.0, 8.0, 7.0, 0.2, 0.1, 0.3]
    session(tmp_path, STAMP, [iteration(i, 1.0, time=t) for i, t in enumerate(times, start=1)])
    assert read_work_dir(tmp_path).step_seconds == 0.2


def test_several_teachers(tmp_path: Path) -> None:
    session(tmp_path, STAMP, [iteration(1, 1.0)])
    digest = "ab" * 32
    lines = [
        f"INFO - DistillHook teacher.{name}: Net from /a b/{name}.pth (sha256 {digest}): 3 tensors"
        for name in ("big", "wide")
    ]
    (tmp_path / STAMP / f"{STAMP}.log").write_text("\n".join(lines))
    teacher = read_work_dir(tmp_path).teacher
    assert teacher["big.checkpoint"] == "/a b/big.pth"
    assert (teacher["wide.network"], teacher["wide.sha256"]) == ("Net", digest)


ARGUMENTS = "task: detect\nmodel: yolov5n.yaml\nseed: 4\nepochs: 3\ndevice: [0, 1]\nlr0: 0.01\n"
HEADER = (
    "epoch,time,train/box_loss,train/cls_loss,metrics/mAP50-95(B),val/box_loss,lr/pg0,"
    "train/kd_loss,distill/a,distill/weight_a,distill/share_a,distill/ratio,"
    "distill/teacher_time_share"
)
ROWS = (
    "1,2.5,3,1,0.125,2,0.1,6,12,0.5,0.3,1.5,0.25",
    "2,5,2,0.5,0.25,1,0.05,5,10,0.5,0.3,2,0.25",
)


def yolo(folder: Path, text: str = "\n".join([HEADER, *ROWS, ""])) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "args.yaml").write_text(ARGUMENTS)
    (folder / "results.csv").write_text(text)
    return folder


def test_ultralytics(tmp_path: Path) -> None:
    folder = yolo(tmp_path / "run_seed4")
    (folder / "predictions.json").write_text("[]")
    (folder / "weights").mkdir()
    (folder / "weights/last.pt").write_text("weights")
    work = read_work_dir(folder)
    assert (work.framework, work.name, work.seed) == ("ultralytics", "run", 4)
    assert work.settings["model"] == "yolov5n.yaml" and work.settings["device"] == [0, 1]
    assert points(work, "task_loss") == {1: 4, 2: 2.5}
    assert points(work, "metrics/mAP50-95(B)") == {1: 12.5, 2: 25}
    assert {each.name: each.group for each in work.curves} == {
        "task_loss": "task loss",
        "train/box_loss": "task loss",
        "train/cls_loss": "task loss",
        "val/box_loss": "task loss",
        "metrics/mAP50-95(B)": "score",
        "lr/pg0": "learning rate",
        "train/kd_loss": "distillation",
        "distill/a": "distillation",
        "distill/weight_a": "weight",
        "distill/share_a": "share",
        "distill/ratio": "ratio",
        "distill/teacher_time_share": "ratio",
    }
    assert {each.step for each in work.curves} == {"epoch"}
    assert work.detections == folder / "predictions.json"
    assert work.checkpoint == folder / "weights/last.pt"
    assert (work.teacher, work.step_seconds) == ({}, None)
    assert work.notes == ["the run was distilled, but its files do not tell from which teacher"]


def test_ultralytics_of_a_recipe(tmp_path: Path) -> None:
    """Its console output and its result say what Ultralytics' files do not."""
    folder = yolo(tmp_path)
    digest = "0f" * 32
    (folder / "output.log").write_text(
        "Ultralytics 8.4.190 🚀 Python-3.11.7 torch-2.11.0+cu130 CPU (some processor)\n"
        "11/21 11:31:04 - mmengine - \x1b[4m\x1b[97mINFO\x1b[0m - DistillCallback teacher: "
        f"DetectionModel of 10 classes from /x/last.pt (sha256 {digest}); input as the student "
        "sees it; runs 38 of 127 modules\n"
    )
    result = dict(name="distilled", training_seconds=6.0, iterations=12, parameters=3)
    (folder / "result.json").write_text(json.dumps(dict(result=result)))
    work = read_work_dir(folder)
    assert work.environment == {
        "Ultralytics": "8.4.190",
        "Python": "3.11.7",
        "PyTorch": "2.11.0+cu130",
        "Device": "CPU (some processor)",
    }
    assert work.teacher == {
        "network": "DetectionModel",
        "checkpoint": "/x/last.pt",
        "sha256": digest,
        "modules_run": "38 of 127",
    }
    assert (work.name, work.step_seconds, work.notes) == ("distilled", 0.5, [])


def test_ultralytics_own_distillation(tmp_path: Path) -> None:
    folder = yolo(tmp_path, "epoch,train/box_loss,train/dis_loss\n1,2,5\n")
    (folder / "args.yaml").write_text("seed: 0\ndistill_model: yolo11x.pt\n")
    work = read_work_dir(folder)
    assert work.teacher == {"checkpoint": "yolo11x.pt"}
    assert points(work, "task_loss") == {1: 2}
    assert [each.name for each in work.curves if each.group == "distillation"] == ["train/dis_loss"]


# Bad input --------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: expected the work dir .* found nothing"):
        read_work_dir(tmp_path / "none")
    with pytest.raises(InputError, match=r"~no such user/run: expected the work dir"):
        read_work_dir("~no such user/run")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="found a file"):
        read_work_dir(tmp_path / "file")


def test_a_folder_without_logs(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "epoch_1.pth").touch()
    with pytest.raises(InputError, match=r"holds no logs .*vis_data/scalars.json .* results.csv"):
        read_work_dir(tmp_path)


def test_half_written_lines_are_left_out(tmp_path: Path) -> None:
    file = session(tmp_path, STAMP, [iteration(1, 1.0), iteration(2, 2.0)])
    file.write_bytes(file.read_bytes() + b'{"loss": 0.7, "loss_c' + b"\0" * 9 + b'\n{"st\xff')
    work = read_work_dir(tmp_path)
    assert points(work, "loss_cls") == {1: 1, 2: 2}
    assert work.notes == [f"{STAMP}: 2 lines of scalars.json left out, unreadable"]


def test_a_half_written_number_is_left_out(tmp_path: Path) -> None:
    whole = "\n".join([HEADER, *ROWS])  # its last figure may go on
    work = read_work_dir(yolo(tmp_path, whole))
    assert points(work, "distill/teacher_time_share") == {1: 0.25}
    assert "results.csv: 1 row left out, unreadable" in work.notes


def test_values_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    mmengine, ultralytics = tmp_path / "mm", tmp_path / "yolo"
    lines = [iteration(1, 1.0, lr=0.1), iteration(2, math.nan, lr=0.1)]
    session(mmengine, STAMP, [*lines, '{"lr": 1e999, "iter": 3, "step": 3}'])
    work = read_work_dir(mmengine)
    assert points(work, "loss_cls") == {1: 1}
    assert points(work, "lr") == {1: 0.1, 2: 0.1}
    assert "loss_cls: 1 value left out, not finite" in work.notes
    assert "lr: 1 value left out, not finite" in work.notes
    text = "epoch,train/box_loss,lr/pg0\n1,2,0.1\n2,nan,0.1\n3,inf,0.1\n"
    work = read_work_dir(yolo(ultralytics, text))
    assert points(work, "train/box_loss") == {1: 2}
    assert "train/box_loss: 2 values left out, not finite" in work.notes


@pytest.mark.parametrize("text", ["", "\0\0\0", "\n\n", "[]\n", "3\n", '{"step": NaN}\n', "nan\n"])
def test_a_run_that_was_killed_before_its_first_entry(tmp_path: Path, text: str) -> None:
    session(tmp_path / "mm", STAMP, []).write_text(text)
    for folder in (tmp_path / "mm", yolo(tmp_path / "yolo", text)):
        work = read_work_dir(folder)
        assert work.curves == []
        assert any("nothing was logged" in note for note in work.notes)


def test_only_a_text_log(tmp_path: Path) -> None:
    (tmp_path / STAMP).mkdir()
    (tmp_path / STAMP / f"{STAMP}.log").touch()
    work = read_work_dir(tmp_path)
    assert (work.framework, work.curves, work.settings) == ("mmengine", [], {})


@pytest.mark.parametrize(
    "config", ["a = (", "import os\n", "a = print('x')\n", "a = dict(**b)\n", "\0", "a: int = 1\n"]
)
def test_a_config_is_not_executed(tmp_path: Path, config: str) -> None:
    session(tmp_path, STAMP, [iteration(1, 1.0)], config)
    work = read_work_dir(tmp_path)
    assert (work.settings, work.teacher) == ({}, {})
    assert any("config.py" in note for note in work.notes)
    assert points(work, "loss_cls") == {1: 1}


@pytest.mark.parametrize("text", ["", "[]", "{", "result", "[" * 100_000])
def test_damaged_results_and_arguments(tmp_path: Path, text: str) -> None:
    folder = yolo(tmp_path)
    for name in ("result.json", "args.yaml"):
        (folder / name).write_text(text)
    work = read_work_dir(folder)
    assert (work.name, work.seed, work.settings) == (tmp_path.name, None, {})
    assert "result.json cannot be read" in work.notes
    assert any(note.startswith("args.yaml cannot be read") for note in work.notes)
    assert points(work, "task_loss") == {1: 4, 2: 2.5}


def test_arguments_that_stand_for_more_than_memory_holds(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (folder / "args.yaml").write_text("\n".join(lines))
    work = read_work_dir(folder)
    assert work.settings == {}
    assert any("stands for more than 100000 values" in note for note in work.notes)


@pytest.mark.parametrize("name", ["results.csv", "args.yaml", "output.log", "result.json"])
def test_logs_that_memory_does_not_hold(tmp_path: Path, name: str) -> None:
    """They are an error, or left out with a note."""
    folder = yolo(tmp_path)
    with (folder / name).open("wb") as stream:
        stream.truncate(20_000_000_000)  # it has holes, and takes no room
    try:
        said = " ".join(read_work_dir(folder).notes)
    except InputError as error:
        said = str(error)
    assert name in said


def test_numbers_that_no_figure_can_show(tmp_path: Path) -> None:
    folder = yolo(tmp_path)
    (folder / "args.yaml").unlink()  # which knows the seed
    result = dict(parameters=10**400, seed=-(10**400), iterations=10**400, training_seconds=1.0)
    (folder / "result.json").write_text(json.dumps(dict(result=result)))
    work = read_work_dir(folder)
    assert (work.parameters, work.seed, work.step_seconds) == (None, None, None)


def test_several_detection_files(tmp_path: Path) -> None:
    session(tmp_path, STAMP, [iteration(1, 1.0)])
    for name in ("a.bbox.json", "b.bbox.json"):
        (tmp_path / name).touch()
    work = read_work_dir(tmp_path)
    assert work.detections is None
    assert any("a.bbox.json, b.bbox.json" in note for note in work.notes)


def evaluated(folder: Path, written: str, **prefixes: str) -> WorkDir:
    """A work dir whose validation and test data differ, with detections."""
    config = ""
    for split, images in (("val", "val_images"), ("test", "test_images")):
        (folder / images).mkdir(parents=True)
        (folder / f"{split}.json").touch()
        evaluator = dict(ann_file=str(folder / f"{split}.json"))
        if split in prefixes:
            evaluator["outfile_prefix"] = prefixes[split]
        loader = dict(dataset=dict(data_root=str(folder), data_prefix=dict(img=images)))
        config += f"{split}_evaluator = {evaluator!r}\n{split}_dataloader = {loader!r}\n"
    session(folder, STAMP, [iteration(1, 1.0)], config)
    (folder / written).write_text("[]")
    return read_work_dir(folder)


@pytest.mark.parametrize(
    ("written", "prefixes", "split"),
    [
        ("val.bbox.json", dict(val="work/val"), "val"),
        ("val.bbox.json", dict(val="work/val", test="work/test"), "val"),
        ("found.bbox.json", dict(val="work/val", test="work/found"), "test"),
        ("detections.bbox.json", {}, "val"),
        ("detections.bbox.json", dict(test="work/detections"), "test"),
    ],
)
def test_annotations_are_of_the_split_that_wrote_the_detections(
    tmp_path: Path, written: str, prefixes: dict[str, str], split: str
) -> None:
    work = evaluated(tmp_path / "run", written, **prefixes)
    assert work.annotations == tmp_path / f"run/{split}.json"
    assert work.images == tmp_path / f"run/{split}_images"
    assert work.notes == []


@pytest.mark.parametrize("prefixes", [{}, dict(val="work/val"), dict(val="a/of", test="b/of")])
def test_no_split_is_guessed(tmp_path: Path, prefixes: dict[str, str]) -> None:
    work = evaluated(tmp_path / "run", "of.bbox.json", **prefixes)
    assert (work.annotations, work.images) == (None, None)
    [note] = work.notes
    assert "val.json is taken: name the right annotation file by --annotations" in note


def test_split_of_detections_does_not_matter_where_both_name_one_file(tmp_path: Path) -> None:
    (tmp_path / "all.json").touch()
    evaluator = dict(ann_file=str(tmp_path / "all.json"))
    config = f"val_evaluator = {evaluator!r}\ntest_evaluator = [{evaluator!r}, dict(type='A')]\n"
    session(tmp_path, STAMP, [iteration(1, 1.0)], config)
    (tmp_path / "found.bbox.json").write_text("[]")
    assert read_work_dir(tmp_path).annotations == tmp_path / "all.json"


def test_seed(tmp_path: Path) -> None:
    """As the trainer set it, else as a recipe noted it, else from the folder's name."""
    folder = tmp_path / "run_seed7"
    file = session(folder, STAMP, [iteration(1, 1.0)], "randomness = dict(seed=None)\n")
    assert read_work_dir(folder).seed == 7
    (folder / "result.json").write_text(json.dumps(dict(result=dict(name="run", seed=6))))
    assert read_work_dir(folder).seed == 6
    (file.parent / "config.py").write_text("randomness = dict(seed=0)\n")
    assert read_work_dir(folder).seed == 0


def test_a_log_cut_at_every_place(tmp_path: Path) -> None:
    """Whole lines are kept, whatever follows them."""
    lines = [iteration(1, 1.5), {"coco/bbox_mAP": 0.5, "step": 1}, iteration(2, 1.25)]
    file = session(tmp_path / "mm", STAMP, lines)
    table = yolo(tmp_path / "yolo") / "results.csv"
    for log, name, step in ((file, "loss_cls", 1), (table, "train/box_loss", 1)):
        content = log.read_bytes()
        first = 1 + content.index(b"\n", content.index(b"\n") + 1 if log == table else 0)
        for cut in range(len(content) + 1):
            log.write_bytes(content[:cut])
            curve = read_work_dir(tmp_path / ("yolo" if log == table else "mm")).curve(name)
            # A line of JSON is whole with its last bracket, a row of figures with its end.
            assert (curve is not None) == (cut >= first - (log == file))
            assert curve is None or curve.points[0][0] == step
        log.write_bytes(content)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """A file's content cut, with bytes replaced, or with a piece repeated."""
    places = st.integers(0, len(content))

    def splice(start: int, end: int, piece: bytes) -> bytes:
        return content[:start] + piece + content[end:]

    pieces: st.SearchStrategy[bytes] = st.one_of(
        st.binary(max_size=8),
        st.sampled_from([b"", b"\0", b"NaN", b"-", b"1e999", b"\n", b"{", b"[" * 5000, b"dict("]),
        st.builds(lambda a, b: content[min(a, b) : max(a, b)], places, places),
    )
    return st.builds(splice, places, places, pieces)


def copy_of(source: Path, target: Path) -> Callable[[str, bytes], None]:
    """Copies a work dir without its weights; what puts a file of it back in another state."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pth"))
    return lambda name, content: (target / name).write_bytes(content)  # type: ignore[func-returns-value]


@given(data=st.data())
def test_damaged_logs_of_a_real_run(
    resumed: tuple[Path, Recorder, dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "run"
    write = copy_of(resumed[0], folder)
    newest = max(each.name for each in folder.iterdir() if each.is_dir())
    files = [f"{newest}/vis_data/scalars.json", f"{newest}/vis_data/config.py"]
    files += [f"{newest}/{newest}.log", "last_checkpoint"]
    name = data.draw(st.sampled_from(files))
    write(name, data.draw(damaged((folder / name).read_bytes())))
    check(folder)


@given(data=st.data())
def test_damaged_logs_of_ultralytics(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = yolo(tmp_path_factory.mktemp("yolo"))
    (folder / "result.json").write_text('{"result": {"name": "a", "parameters": 3, "images": "."}}')
    name = data.draw(st.sampled_from(["args.yaml", "results.csv", "result.json"]))
    (folder / name).write_bytes(data.draw(damaged((folder / name).read_bytes())))
    check(folder)


def check(folder: Path) -> None:
    """A result or an InputError, and nothing in it that a report could not show."""
    try:
        work = read_work_dir(folder)
    except InputError:
        return
    values = [value for curve in work.curves for point in curve.points for value in point]
    assert all(map(math.isfinite, values))
    assert all(curve.points for curve in work.curves)
    json.dumps(work.settings)
