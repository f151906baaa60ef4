"""The scripts in tools/, and MMDetection's own, run as users run them."""

from __future__ import annotations

import json
import os
import pickle
import runpy
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmkd.ops
from helpers.small_scale import CONFIGS, ROOT, build
from mmkd.data import make_digits

TOOLS = ROOT / "tools"
STOCK_TOOLS = Path(mmdet.__file__).parent / ".mim/tools"
DIGITS = CONFIGS / "digits"
STUDENT = DIGITS / "faster-rcnn_r18-w8_digits.py"
PAIR = DIGITS / "faster-rcnn_r18-w8_digits_distill.py"
TEACHER = DIGITS / "faster-rcnn_r18-w16_digits.py"


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a command on one thread; its output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        # Compiling every import anew would be most of the time.
        environment["PYTHONPYCACHEPREFIX"] = str(cwd / "pycache")
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


# The digits detectors -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run."""
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def data_options(folder: Path) -> list[str]:
    """--cfg-options that point the digits configs at a set of 8 and 4 images."""
    digits = make_digits(folder / "digits", num_train=8, num_val=4, max_digits=4)
    annotations = digits / "annotations/val.json"
    return [
        *[f"{each}_dataloader.dataset.data_root={digits}/" for each in ("train", "val", "test")],
        *[f"{each}_evaluator.ann_file={annotations}" for each in ("val", "test")],
        "train_dataloader.batch_size=4",
    ]


@pytest.fixture(scope="module")
def train_options(folder: Path, data_options: list[str]) -> list[str]:
    """The same and a teacher with seeded weights, for one epoch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = build(Config.fromfile(TEACHER).model)
        teacher.init_weights()
    torch.save(teacher.state_dict(), folder / "teacher.pth")
    return [
        *data_options,
        f"custom_hooks.0.teacher.checkpoint={folder / 'teacher.pth'}",
        "train_cfg.max_epochs=1",
        "train_cfg.val_interval=1",
        "default_hooks.checkpoint.interval=1",
        "default_hooks.logger.interval=1",
    ]


@pytest.fixture(scope="module")
def trained(folder: Path, train_options: list[str]) -> Path:
    """The work dir of tools/train.py."""
    run(sys.executable, TOOLS / "train.py", PAIR, "--cfg-options", *train_options, cwd=folder)
    return folder / "work_dirs" / PAIR.stem


def scalars(work_dir: Path) -> list[dict]:
    """All that a work dir's newest run has logged."""
    (*_, newest) = sorted(work_dir.glob("*/vis_data/scalars.json"))
    return [json.loads(line) for line in newest.read_text().splitlines()]


def state_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, map_location="cpu", weights_only=False)["state_dict"]


def test_train_writes_an_ordinary_checkpoint(trained: Path) -> None:
    plain = build(Config.fromfile(STUDENT).model).state_dict()
    state = state_of(trained / "epoch_1.pth")
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in plain.items()}
    logged = scalars(trained)
    assert "loss_distill_neck" in logged[0]
    assert "coco/bbox_mAP" in logged[-1]


def test_resume_goes_on_after_the_last_epoch(
    folder: Path, trained: Path, train_options: list[str]
) -> None:
    options = [*train_options, "train_cfg.max_epochs=2"]
    run(
        *(sys.executable, TOOLS / "train.py", PAIR, "--resume", trained / "epoch_1.pth"),
        *("--work-dir", folder / "resumed", "--cfg-options", *options),
        cwd=folder,
    )
    assert {entry["epoch"] for entry in scalars(folder / "resumed") if "epoch" in entry} == {2}
    resumed = torch.load(folder / "resumed/epoch_2.pth", weights_only=False)
    assert resumed["meta"]["epoch"] == 2
    assert "mmkd" in resumed


def test_test_needs_no_teacher(folder: Path, trained: Path, data_options: list[str]) -> None:
    run(
        *(sys.executable, TOOLS / "test.py", PAIR, trained / "epoch_1.pth"),
        *("--work-dir", folder / "tested", "--out", folder / "predictions.pkl"),
        *("--show-dir", "drawn", "--cfg-options", *data_options),
        cwd=folder,
    )
    with (folder / "predictions.pkl").open("rb") as stream:
        predictions = pickle.load(stream)
    assert len(predictions) == 4
    assert {"bboxes", "scores", "labels"} <= predictions[0]["pred_instances"].keys()
    assert len(list((folder / "tested").glob("*/drawn/*.png"))) == 4
    (metrics,) = (folder / "tested").glob("*/*.json")
    assert "coco/bbox_mAP" in json.loads(metrics.read_text())


@pytest.mark.skipif(not STOCK_TOOLS.is_dir(), reason="MMDetection came without its scripts")
def test_stock_scripts_train_the_same_student(
    folder: Path, trained: Path, train_options: list[str], data_options: list[str]
) -> None:
    """MMDetection's train.py ends in the same bits; its test.py reads the checkpoint."""
    run(
        *(sys.executable, STOCK_TOOLS / "train.py", PAIR, "--work-dir", folder / "stock"),
        *("--cfg-options", *train_options),
        cwd=folder,
    )
    ours = state_of(trained / "epoch_1.pth")
    theirs = state_of(folder / "stock/epoch_1.pth")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)

    # The stock test.py imports mmcv's operators before it reads a config.
    script = f"""
        import runpy, sys
        {"import mmkd" if mmkd.ops.is_stand_in() else ""}
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
    """
    output = run(
        *(sys.executable, "-c", textwrap.dedent(script), STOCK_TOOLS / "test.py", PAIR),
        *(folder / "stock/epoch_1.pth", "--work-dir", folder / "stock_tested"),
        *("--cfg-options", *data_options),
        cwd=folder,
    )
    assert "coco/bbox_mAP" in output


def test_the_student_loads_without_mmkd(folder: Path, trained: Path) -> None:
    """Strictly, in a process where mmcv's operators exist in name only and mmkd not at all."""
    model = Config(dict(model=Config.fromfile(STUDENT).model))
    model.dump(folder / "student.py")
    script = """
        import importlib.util, sys, types
        if importlib.util.find_spec("mmcv._ext") is None:
            stub = types.ModuleType("mmcv._ext")
            stub.__spec__ = importlib.util.spec_from_loader("mmcv._ext", loader=None)
            stub.__getattr__ = lambda name: None
            sys.modules["mmcv._ext"] = stub
        import torch
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
        from mmengine.config import Config
        register_all_modules()
        model = MODELS.build(Config.fromfile("student.py").model)
        checkpoint = torch.load(sys.argv[1], map_location="cpu", weights_only=False)
        model.load_state_dict(checkpoint["state_dict"], strict=True)
        features = model.eval().extract_feat(torch.zeros(1, 3, 96, 96))
        assert all(torch.isfinite(feature).all() for feature in features)
        assert not any(name.partition(".")[0] == "mmkd" for name in sys.modules)
    """
    run(sys.executable, "-c", textwrap.dedent(script), trained / "epoch_1.pth", cwd=folder)


# Command lines --------------------------------------------------------------------------------


@dataclass
class Started:
    """What a script made of a command line."""

    status: int
    config: Config | None
    called: str | None


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Started]:
    """Runs a script with a Runner that does nothing."""

    def start(name: str, *arguments: str | Path) -> Started:
        found = Started(0, None, None)

        class Stopped:
            def __init__(self, config: Config) -> None:
                found.config = config

            def register_hook(self, hook: Hook) -> None: ...

            def train(self) -> None:
                found.called = "train"

            def test(self) -> None:
                found.called = "test"

        monkeypatch.setattr(Runner, "from_cfg", Stopped)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")
        found.status = end.value.code
        return found

    monkeypatch.setenv("LOCAL_RANK", "")  # so that what the scripts set is undone
    monkeypatch.delenv("LOCAL_RANK")
    return start


def read(started: Started) -> Config:
    """The config with which a script began."""
    assert started.status == 0 and started.config is not None
    return started.config


def test_train_options(tool: Callable[..., Started]) -> None:
    config = CONFIGS / "faster_rcnn/faster-rcnn_mbv2-fpn_r50-distill_90k_coco.py"
    started = tool("train", config)
    plain = read(started)
    assert started.called == "train"
    assert plain.work_dir == f"./work_dirs/{config.stem}"
    assert (plain.launcher, plain.resume, plain.load_from) == ("none", False, None)
    assert not plain.auto_scale_lr.enable
    assert plain.optim_wrapper.type == "OptimWrapper"
    assert os.environ["LOCAL_RANK"] == "0"

    changed = read(
        tool(
            *("train", config, "--amp", "--auto-scale-lr", "--resume", "--work-dir", "elsewhere"),
            *("--launcher", "pytorch", "--cfg-options", "train_cfg.max_iters=3"),
            "custom_hooks.0.teacher.checkpoint=other.pth",
        )
    )
    assert changed.optim_wrapper.type == "AmpOptimWrapper"
    assert changed.optim_wrapper.loss_scale == "dynamic"
    assert changed.auto_scale_lr.enable
    assert (changed.resume, changed.load_from) == (False, None)
    assert (changed.work_dir, changed.launcher) == ("elsewhere", "pytorch")
    assert changed.train_cfg.max_iters == 3
    assert changed.custom_hooks[0].teacher.checkpoint == "other.pth"


@pytest.mark.parametrize(
    ("arguments", "load_from"),
    [
        (["--resume", "some.pth"], "some.pth"),
        (["--resume=some.pth"], "some.pth"),
        # The work dir holds none to go on from.
        (["--resume"], None),
        (["--resume", "--amp"], None),
        (["--resume", "auto"], None),
    ],
)
def test_resume_with_and_without_a_checkpoint(
    tool: Callable[..., Started], arguments: list[str], load_from: str | None
) -> None:
    resumed = read(tool("train", PAIR, *arguments))
    assert (resumed.resume, resumed.load_from) == (load_from is not None, load_from)


@pytest.mark.parametrize("spelling", ["--local_rank=1", "--local-rank=1"])
def test_a_launchers_rank(tool: Callable[..., Started], spelling: str) -> None:
    read(tool("train", PAIR, spelling, "--launcher", "pytorch"))
    assert os.environ["LOCAL_RANK"] == "1"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train none.py", "no config 'none.py'"),
        ("train bare.py --auto-scale-lr", "base_batch_size"),
        ("train bare.py weights.pth", "expected key=value, got 'weights.pth'"),
        ("test bare.py student.pth --show-dir drawn", "visualization"),
        ("test bare.py student.pth --out predictions.json", "predictions.json"),
        ("train foreign.py", "ends in one line"),
    ],
)
def test_wrong_calls(
    tool: Callable[..., Started],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bare.py").write_text("model = dict(type='X')\n")
    Path("foreign.py").write_text("raise ValueError('ends in one line')\n")
    name, *arguments = line.split()
    started = tool(name, *arguments)
    assert (started.status, started.called) == (2, None)
    said = capsys.readouterr().err
    assert said.startswith(f"mmkd {name}: ") and message in said and said.count("\n") == 1


def test_test_options(tool: Callable[..., Started]) -> None:
    started = tool("test", PAIR, "student.pth")
    plain = read(started)
    assert started.called == "test"
    assert (plain.load_from, plain.resume) == ("student.pth", False)
    assert plain.work_dir == f"./work_dirs/{PAIR.stem}"
    assert "draw" not in plain.default_hooks.visualization
    drawing = read(tool("test", PAIR, "student.pth", "--show-dir", "drawn", "-o", "a=1", "b.c=2"))
    assert drawing.default_hooks.visualization.draw
    assert (drawing.a, drawing.b.c) == (1, 2)


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "expected"),
    [
        (
            "dist_train.sh",
            ["a config.py", "4", "--amp", "--work-dir", "w d"],
            {"PORT": "29511", "NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1"},
            [
                *["python", "-m", "torch.distributed.run", "--nnodes=2", "--node_rank=1"],
                *["--nproc_per_node=4", "--master_addr=10.0.0.1", "--master_port=29511"],
                *["TOOLS/train.py", "a config.py", "--launcher", "pytorch"],
                *["--amp", "--work-dir", "w d"],
            ],
        ),
        (
            "dist_test.sh",
            ["c.py", "s.pth", "2"],
            {},
            [
                *["python", "-m", "torch.distributed.run", "--nnodes=1", "--node_rank=0"],
                *["--nproc_per_node=2", "--master_addr=127.0.0.1", "--master_port=29500"],
                *["TOOLS/test.py", "c.py", "s.pth", "--launcher", "pytorch"],
            ],
        ),
        (
            "slurm_train.sh",
            ["gpu", "job", "c.py", "work", "--amp"],
            {"GPUS": "4", "SRUN_ARGS": "--mem=8G --qos=low"},
            [
                *["srun", "--partition=gpu", "--job-name=job", "--ntasks=4"],
                *["--ntasks-per-node=4", "--gres=gpu:4", "--cpus-per-task=5"],
                *["--kill-on-bad-exit=1", "--mem=8G", "--qos=low", "python", "-u"],
                *["TOOLS/train.py", "c.py", "--work-dir", "work", "--launcher", "slurm", "--amp"],
            ],
        ),
        (
            "slurm_test.sh",
            ["gpu", "job", "c.py", "s.pth"],
            {"GPUS": "16"},
            [
                *["srun", "--partition=gpu", "--job-name=job", "--ntasks=16"],
                *["--ntasks-per-node=8", "--gres=gpu:8", "--cpus-per-task=5"],
                *["--kill-on-bad-exit=1", "python", "-u"],
                *["TOOLS/test.py", "c.py", "s.pth", "--launcher", "slurm"],
            ],
        ),
    ],
)
def test_launchers(
    tmp_path: Path,
    script: str,
    arguments: list[str],
    environment: dict[str, str],
    expected: list[str],
) -> None:
    """With stand-ins for python and srun that print how they are called."""
    for name in ("python", "srun"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nbasename "$0"\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
    clean = {"PATH": f"{tmp_path}:/usr/bin:/bin", **environment}
    done = subprocess.run(
        [TOOLS / script, *arguments], env=clean, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [part.replace("TOOLS", str(TOOLS)) for part in expected]
    usage = subprocess.run([TOOLS / script], env=clean, capture_output=True, text=True)
    assert usage.returncode == 2
    assert f"tools/{script}" in usage.stderr
