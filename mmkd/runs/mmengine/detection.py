"""Detections of an MMDetection checkpoint."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmkd.checkpoint import CheckpointWeights, load_weights, read_weights
from mmkd.engine.mmengine.safe_yaml import load_config
from mmkd.engine.random_state import preserved_random_state
from mmkd.errors import InputError, first_few
from mmkd.evaluation.coco_files import Annotations
from mmkd.extras import extra
from mmkd.runs.library_output import output_to
from mmkd.runs.mmengine.embedded_config import closed, read_embedded_config

with extra("mmdet", "a checkpoint of MMDetection's"):
    from mmdet.registry import DATASETS

__all__ = ["detect_with_config"]


def detect_with_config(
    checkpoint: Path,
    annotations: Annotations,
    images: Path,
    out: Path,
    *,
    config: Path | None,
    log: Path,
) -> int:
    """Writes the boxes that a checkpoint finds, by the Runner's own test loop.

    Args:
        checkpoint: ``.pth`` file of a detector. Nothing that is pickled in it is executed.
        annotations: Of the images.
        images: Folder of the images.
        out: File to write, in COCO's result format, its name ending in ``.bbox.json``.
        config: Of the detector; None: the one that MMEngine stored in the checkpoint, of which
            only classes are built that compute and do nothing else.
        log: Gets what libraries print.

    Returns:
        The number of the detector's parameters.

    Raises:
        InputError: No checkpoint, one that does not fit its config, or other classes than the
            annotations'.
    """
    try:
        source = read_weights(checkpoint)
    except ValueError as error:
        raise InputError(
            f"{checkpoint} is no checkpoint, is damaged, or holds more than weights, which is not "
            "executed"
        ) from error
    origin = config or checkpoint
    # The Runner sets scope and seeds for good.
    with (
        output_to(log),
        DefaultScope.overwrite_default_scope("mmdet"),
        preserved_random_state(),
        _failures_as_input_errors(origin, log),
    ):
        settings = _read_config(source, config)
        testing = _to_test(settings, origin, annotations, images, out)
        with _runner(testing, None if config else checkpoint) as runner:
            _load(runner, source, origin)
            _check_classes(runner, annotations, origin)
            runner.test()
            return sum(each.numel() for each in runner.model.parameters())


@contextlib.contextmanager
def _failures_as_input_errors(origin: Path, log: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # A config of another version, or for other data, fails in any way.
        traceback.print_exc()
        raise InputError(
            f"{origin} cannot be tested on these images: {error!r}. More in {log}"
        ) from error


def _read_config(source: CheckpointWeights, file: Path | None) -> Config:
    if file is not None:
        return load_config(file)
    return read_embedded_config(source)


def _to_test(
    settings: Config, origin: Path, annotations: Annotations, images: Path, out: Path
) -> Config:
    """A config that does nothing but detect on the images."""
    loader = settings.get("test_dataloader") or settings.get("val_dataloader") or {}
    dataset = _with_pipeline(loader.get("dataset"))
    if dataset is None or "model" not in settings:
        raise InputError(f"{origin}: expected a config with model and test_dataloader.dataset")
    testing: dict[str, Any] = dict(
        model=settings.model,
        test_dataloader=dict(
            batch_size=loader.get("batch_size", 1),
            num_workers=loader.get("num_workers", 0),
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=dict(
                type="mmdet.CocoDataset",
                ann_file=str(annotations.file.resolve()),
                data_prefix=dict(img=str(images.resolve())),
                metainfo=dict(classes=_classes(dataset)),
                pipeline=dataset["pipeline"],
                test_mode=True,
            ),
        ),
        test_cfg=dict(type="TestLoop"),
        test_evaluator=dict(
            type="mmdet.CocoMetric",
            ann_file=str(annotations.file.resolve()),
            format_only=True,
            outfile_prefix=str(out).removesuffix(".bbox.json"),
        ),
        default_scope=settings.get("default_scope") or "mmdet",
        work_dir=str(out.parent),
        # Loggers and visualizers of one name are one.
        experiment_name=f"detect_{time.time_ns()}",
    )
    testing["visualizer"] = dict(type="Visualizer", name=testing["experiment_name"])
    return Config(testing)


def _with_pipeline(dataset: Any) -> Mapping[str, Any] | None:
    """The data set, or what it wraps."""
    while isinstance(dataset, Mapping) and "pipeline" not in dataset:
        dataset = dataset.get("dataset") or next(iter(dataset.get("datasets") or []), None)
    return dataset if isinstance(dataset, Mapping) else None


def _classes(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """As the config names them, or else the kind of data set."""
    given = dict(dataset.get("metainfo") or {}).get("classes")
    return tuple(given or DATASETS.get(dataset["type"]).METAINFO["classes"])


@contextlib.contextmanager
def _runner(config: Config, embedded_in: Path | None) -> Iterator[Runner]:
    """A Runner whose logger is closed afterwards, as its stream will be."""
    try:
        with closed(embedded_in) if embedded_in else contextlib.nullcontext():
            runner = Runner.from_cfg(config)
        yield runner
    finally:
        logger = MMLogger.get_current_instance()
        if logger.instance_name.startswith(config.experiment_name):
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
                handler.close()


def _load(runner: Runner, source: CheckpointWeights, origin: Path) -> None:
    report = load_weights(runner.model, source)
    problems = [
        *(f"{key} is missing" for key in report.missing),
        *report.mismatched,
        *(f"{key} has no place in the model" for key in report.unexpected),
    ]
    if problems:
        raise InputError(
            f"{source.file} does not fit the config of {origin}, {len(problems)} weights differ: "
            f"{first_few(problems)}. Give the config that the checkpoint was trained with"
        )


def _check_classes(runner: Runner, annotations: Annotations, origin: Path) -> None:
    """MMDetection numbers classes as the annotation file lists them, whatever the config says."""
    dataset = runner.test_dataloader.dataset
    classes = list(dataset.metainfo["classes"])
    if sorted(classes) != sorted(annotations.category_names):
        raise InputError(
            f"{origin} detects the classes {classes}, but {annotations.file} holds the categories "
            f"{annotations.category_names}: expected the same names"
        )
    names = dict(zip(annotations.category_ids, annotations.category_names, strict=True))
    listed = [names[each] for each in dataset.cat_ids]
    if listed != classes:
        raise InputError(
            f"{origin} detects the classes {classes}, but {annotations.file} lists its categories "
            f"in the order {listed}, by which MMDetection would number them: put them in one order"
        )
