"""Teachers of the MM family, from the ``teacher`` setting of a DistillHook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmkd.checkpoint import read_weights
from mmkd.engine.input_conversion import ImageFormat, InputConversion, image_sizes
from mmkd.features import find_module
from mmkd.teacher import Teacher, load_weights, modules_that_run
from mmkd.terms import check_keys

__all__ = ["MMTeacher", "TeacherSettings", "naming", "parse_teachers"]

_KEYS = ("config", "model", "checkpoint", "allow_pickle")


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Prefixes errors of the user's making with the setting they come from."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, FileNotFoundError) as error:
        if str(error).startswith("DistillHook"):
            raise
        kind = next(
            k
            for k in (FileNotFoundError, TypeError, ValueError, RuntimeError)
            if isinstance(error, k)
        )
        raise kind(f"DistillHook {key}: {error}") from error


@dataclass(frozen=True)
class TeacherSettings:
    """One teacher: where its architecture and its weights come from."""

    key: str
    checkpoint: str
    config: str | None = None
    model: Mapping[str, Any] | None = None
    allow_pickle: bool = False

    def build(self) -> nn.Module:
        """The teacher's model, with the weights it is built with.

        Raises:
            ValueError: No such config, or one without a model.
        """
        if self.config is None:
            return MODELS.build(dict(self.model or {}))
        with naming(f"{self.key}.config"):
            config = _read_config(self.config)
        if "model" not in config:
            raise ValueError(f"DistillHook {self.key}.config: {self.config} defines no model")
        current = DefaultScope.get_current_instance()
        scope = config.get("default_scope") or (current.scope_name if current else "mmengine")
        with DefaultScope.overwrite_default_scope(scope):
            return MODELS.build(config.model)


def _read_config(path: str) -> Config:
    try:
        if "::" in path:
            from mmengine.hub import get_config

            return get_config(path)
        return Config.fromfile(path)
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise ValueError(
            f"cannot read {path!r} ({error}): expected a config file's path or "
            "'package::path', such as 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'"
        ) from error


def parse_teachers(teacher: Mapping[str, Any]) -> dict[str, TeacherSettings]:
    """Reads the ``teacher`` setting: one teacher, or several by name.

    Raises:
        TypeError: Not a dict of the expected form.
        ValueError: An unknown key, or one that is missing.
    """
    if not isinstance(teacher, Mapping) or not teacher:
        raise TypeError(
            f"DistillHook teacher: expected dict(config=..., checkpoint=...), got {teacher!r}"
        )
    several = all(isinstance(v, Mapping) for v in teacher.values()) and not set(teacher) & {*_KEYS}
    named = dict(teacher) if several else {"teacher": teacher}
    parsed = {}
    for name, settings in named.items():
        key = f"teacher.{name}" if several else "teacher"
        check_keys(f"DistillHook {key}", settings, _KEYS)
        if ("config" in settings) == ("model" in settings):
            raise ValueError(f"DistillHook {key}: give either 'config' or 'model'")
        if not settings.get("checkpoint"):
            raise ValueError(
                f"DistillHook {key}.checkpoint is missing: a teacher without trained weights "
                "has nothing to teach. Give the .pth or .safetensors file of its weights."
            )
        parsed[name] = TeacherSettings(key=key, **settings)
    return parsed


class MMTeacher:
    """A teacher that takes what the student's preprocessor made.

    Args:
        settings: Where it comes from.
        taps: The modules to tap, by the config key that names each.
        preprocessor: The student's data preprocessor.
        device: Where to run.
        probe_size: Side of the blank image on which it is tried.

    Raises:
        ValueError: Config, checkpoint, taps or weights do not fit.
        FileNotFoundError: No such checkpoint.
    """

    def __init__(
        self,
        settings: TeacherSettings,
        taps: Mapping[str, str],
        preprocessor: nn.Module,
        device: torch.device,
        probe_size: int,
    ) -> None:
        with naming(f"{settings.key}.checkpoint"):
            weights = read_weights(settings.checkpoint, allow_pickle=settings.allow_pickle)
        model = settings.build()
        report = load_weights(model, weights)
        for key, path in taps.items():
            with naming(key):
                find_module(model, path)
        self._teacher = Teacher(model, taps.values(), _forward)
        model.to(device)
        student_format = ImageFormat.of(preprocessor)
        own = getattr(model, "data_preprocessor", None)
        self._convert = InputConversion(
            student_format, ImageFormat.of(own) if own is not None else student_format
        )
        blank = torch.zeros(1, 3, probe_size, probe_size, device=device)
        with modules_that_run(model) as ran, naming(settings.key):
            self.probed = self._teacher.features(blank)
        with naming(f"{settings.key}.checkpoint"):
            report.require(ran)
        print_log(
            f"DistillHook {settings.key}: {type(model).__name__} from {report}; "
            f"input {'as the student sees it' if self._convert.is_identity else 'converted'}; "
            f"runs {len(ran)} of {sum(1 for _ in model.modules()) - 1} modules",
            logger="current",
        )

    @property
    def model(self) -> nn.Module:
        """The frozen model."""
        return self._teacher.model

    def features(self, inputs: Tensor, data_samples: Sequence[Any] | None) -> dict[str, Any]:
        """Tapped outputs for a batch in the student's preprocessing.

        Args:
            inputs: ``[N, 3, H, W]``.
            data_samples: Of the batch; tell which part of each image is padding.
        """
        sizes = None if self._convert.is_identity else image_sizes(data_samples)
        return self._teacher.features(self._convert(inputs, sizes), data_samples)


def _forward(model: nn.Module, inputs: Tensor, data_samples: Any) -> Any:
    if isinstance(model, BaseModel):
        return model(inputs, data_samples, mode="tensor")
    return model(inputs)
