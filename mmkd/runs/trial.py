"""Whether a training begins: tried for one iteration, before anything is written for good."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from pathlib import Path

from mmkd.errors import InputError, MissingFileError, SettingError
from mmkd.runs.interrupts import not_swallowed
from mmkd.runs.library_output import output_to
from mmkd.runs.recipe import Recipe
from mmkd.runs.record import TrainingRecord

__all__ = ["try_training"]


class _HasBegun(Exception):
    """Ends the trial."""


def try_training(config: Path, recipe: Recipe) -> None:
    """Trains for one iteration: networks, taps, terms, data and optimizer are those of the run.

    Args:
        config: For errors.
        recipe: Its work dir is gone afterwards.

    Raises:
        InputError: It does not begin, and why. Where that is no setting of mmkd's, what was
            printed is kept in a file that the message names.
    """
    log = recipe.work_dir / "output.log"
    recipe.work_dir.mkdir(parents=True)
    try:
        with output_to(log), not_swallowed():
            _begin(recipe)
    except _HasBegun:
        return
    except FileNotFoundError as error:
        raise MissingFileError(f"{config}: {_one_line(error)}") from error
    except SettingError as error:
        raise InputError(f"{config}: {_one_line(error)}", setting=error.setting) from error
    except Exception as error:  # A config is a program: anything can go wrong in it.
        raise InputError(
            f"{config}: the training does not begin: {type(error).__name__}: {_one_line(error)}. "
            f"More in {_kept(log)}"
        ) from error
    finally:
        shutil.rmtree(recipe.work_dir)


def _begin(recipe: Recipe) -> None:
    def stop() -> None:
        raise _HasBegun

    try:
        recipe.train(stop, TrainingRecord.open(recipe.work_dir, ""))
    except (_HasBegun, SettingError):
        raise
    except Exception:
        traceback.print_exc()
        raise


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _kept(log: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix="mmkd-compare-", suffix=".log")
    os.close(handle)
    shutil.copyfile(log, name)
    return Path(name)
