"""One config, trained or tested: what ``mmkd train`` and ``mmkd test`` do."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import DumpResults
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmkd.engine.mmengine.config_files import check_scope, open_config
from mmkd.engine.mmengine.resume_points import go_on_from_newest
from mmkd.engine.mmengine.safe_checkpoints import checkpoints_as_data
from mmkd.errors import InputError, SettingError

__all__ = ["config_to_test", "config_to_train", "running", "test", "train"]


def config_to_train(
    name: str,
    *,
    options: Sequence[str] = (),
    launcher: str = "none",
    work_dir: str | None = None,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
) -> Config:
    """A config with what a command line says in place of its own settings.

    Args:
        name: See :func:`mmkd.engine.mmengine.config_files.open_config`.
        options: Likewise.
        launcher: Of several processes: none, pytorch, slurm or mpi.
        work_dir: Folder of logs and checkpoints; None: the config's, or one by its name.
        resume: Checkpoint to go on from, or ``"auto"`` for the newest in the work dir.
        amp: Trains in mixed precision.
        auto_scale_lr: Scales the learning rate to the actual batch size.

    Raises:
        InputError: The config cannot be read, or does not tell its base batch size.
    """
    config = _read(name, options, launcher, work_dir)
    if amp:
        config.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    if auto_scale_lr:
        if "base_batch_size" not in config.get("auto_scale_lr", {}):
            raise InputError(
                f"--auto-scale-lr: {name} does not tell the batch size that its learning rate is "
                "meant for: add auto_scale_lr=dict(base_batch_size=...)"
            )
        config.auto_scale_lr.enable = True
    if resume:
        config.resume = True
        config.load_from = None if resume == "auto" else resume
    return config


def config_to_test(
    name: str,
    checkpoint: str,
    *,
    options: Sequence[str] = (),
    launcher: str = "none",
    work_dir: str | None = None,
    show_dir: str | None = None,
) -> Config:
    """The same for a test.

    Args:
        name, options, launcher, work_dir: See :func:`config_to_train`.
        checkpoint: What to test.
        show_dir: Draws the predictions into this folder of the run's own.

    Raises:
        InputError: The config cannot be read, or has nothing that draws.
    """
    config = _read(name, options, launcher, work_dir)
    config.load_from = checkpoint
    config.resume = False
    if show_dir:
        if "visualization" not in config.get("default_hooks", {}):
            raise InputError(
                f"--show-dir: {name} has no default_hooks.visualization, which draws: "
                "add dict(type='DetVisualizationHook')"
            )
        config.default_hooks.visualization.update(draw=True, test_out_dir=show_dir)
    return config


def train(config: Config) -> None:
    """Trains by a config of :func:`config_to_train`."""
    go_on_from_newest(config)
    with running(config) as runner:
        runner.train()


def test(config: Config, out: str | None = None) -> None:
    """Tests by a config of :func:`config_to_test`.

    Args:
        config: The config.
        out: ``.pkl`` file for the predictions.
    """
    with running(config) as runner:
        if out:
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=out))
        runner.test()


class _Begun(Hook):
    """Notes that the first batch has come."""

    is_so = False

    def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
        self.is_so = True

    before_test_iter = before_train_iter


@contextmanager
def running(config: Config) -> Iterator[Runner]:
    """A Runner that reads checkpoints as data, until it is done.

    A config is a program, and any value of it can be wrong: what fails before the first batch
    is an error of one line, and what fails later keeps its traceback.

    Raises:
        InputError: It fails before.
    """
    begun = _Begun()
    try:
        with checkpoints_as_data(config.get("allow_pickle", False)):
            check_scope(config.get("default_scope"))
            has_own = "runner_type" in config
            runner = RUNNERS.build(config) if has_own else Runner.from_cfg(config)
            runner.register_hook(begun)
            yield runner
    except (SettingError, OSError):
        raise
    except Exception as error:
        if begun.is_so:
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{config.filename}: it cannot be started: {said} ({last.filename}, line {last.lineno})"
        ) from error


def _read(name: str, options: Sequence[str], launcher: str, work_dir: str | None) -> Config:
    config = open_config(name, options)
    config.launcher = launcher
    config.work_dir = work_dir or config.get("work_dir") or f"./work_dirs/{Path(name).stem}"
    return config
