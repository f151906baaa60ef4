"""Teachers of the MM family: a config and the checkpoint that belongs to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmkd.checkpoint import load_weights
from mmkd.engine.frozen_teacher import FrozenTeacher, TeacherFiles, taps_of
from mmkd.engine.input_conversion import ImageFormat, KnownFormat, Order, conversion_between
from mmkd.engine.levels import Levels
from mmkd.engine.mmengine.addresses import check_address, local_file, read_weights_of
from mmkd.engine.mmengine.config_files import PACKAGES, open_config
from mmkd.engine.mmengine.detector_heads import check_crossed_boxes, named_outputs, run_model
from mmkd.engine.mmengine.loaded_order import configured_order
from mmkd.engine.own_formats import format_of
from mmkd.engine.teachers import IMAGE_KEYS, StatedImages
from mmkd.errors import InputError, check_keys, naming
from mmkd.terms import Tap, Term

__all__ = ["MMTeacher"]

_KEYS = ("config", "model", "checkpoint", "allow_pickle")


@dataclass(frozen=True)
class MMTeacher:
    """Where a teacher's architecture and its weights come from.

    Args:
        where: The setting that errors name (``'DistillHook teacher'``).
        checkpoint: File of its weights, or an address of MMEngine's kinds
            (``https://...``, ``torchvision://resnet50``).
        config: A config file's path, or ``'package::path'``.
        model: Instead of ``config``: the config of a registered module.
        allow_pickle: Whether the checkpoint may execute code.
        images: Those it takes; None: what its preprocessor makes, else the student's.
    """

    where: str
    checkpoint: str
    config: str | None = None
    model: Mapping[str, Any] | None = None
    allow_pickle: bool = False
    images: StatedImages | None = None

    @classmethod
    def parse(cls, where: str, settings: Mapping[str, Any]) -> MMTeacher:
        """Reads ``dict(config=..., checkpoint=...)``.

        Raises:
            ValueError: An unknown key, or one that is missing.
        """
        check_keys(where, settings, (*_KEYS, *IMAGE_KEYS))
        if ("config" in settings) == ("model" in settings):
            raise InputError.at(where, "give either 'config' or 'model'")
        if not settings.get("checkpoint"):
            raise InputError.at(
                f"{where}.checkpoint",
                "it is missing: a teacher without trained weights "
                "has nothing to teach. Give the .pth or .safetensors file of its weights.",
            )
        own = {key: settings[key] for key in _KEYS if key in settings}
        return cls(where=where, images=StatedImages.beside(where, settings), **own)

    def check(self) -> None:
        """See :class:`mmkd.engine.teachers.TeacherSettings`."""
        with naming(f"{self.where}.checkpoint"):
            check_address(self.checkpoint)

    def files(self) -> TeacherFiles | str:
        """See :class:`mmkd.engine.teachers.TeacherSettings`."""
        if self.config is None:
            return "it comes without a config file"
        try:
            file = local_file(self.checkpoint).expanduser()
        except ValueError as error:
            return str(error)
        return TeacherFiles(file, self.config) if file.is_file() else "it is no checkpoint file"

    def build(
        self,
        terms: Sequence[Term],
        student_format: ImageFormat | None,
        blank: Tensor,
        dtype: torch.dtype | None = None,
    ) -> tuple[FrozenTeacher, list[Term]]:
        """See :class:`mmkd.engine.teachers.TeacherSettings`; the weights are loaded strictly."""
        with naming(f"{self.where}.checkpoint"):
            weights = read_weights_of(self.checkpoint, allow_pickle=self.allow_pickle)
        model, loaded = self._build_model()
        report = load_weights(model, weights)
        images = self._images(model, loaded, student_format)
        terms = self._resolved(terms, model, blank)
        taps = taps_of(self.where, terms)
        with_rpn = any(path.startswith("rpn_head") for _, path in taps)
        teacher = FrozenTeacher(
            self.where,
            model,
            taps,
            conversion_between(self.where, student_format, images.format),
            blank,
            forward=partial(run_model, with_rpn=with_rpn),
            dtype=dtype,
        )
        with naming(f"{self.where}.checkpoint"):
            report.require(teacher.ran)
        teacher.loaded = report
        teacher.introduce(f"{type(model).__name__} from {report}", images)
        return teacher, teacher.located(terms)

    def _resolved(self, terms: Sequence[Term], model: nn.Module, blank: Tensor) -> list[Term]:
        """Terms whose taps name modules, where they named outputs of a head."""
        size = (blank.shape[2], blank.shape[3])
        on_cpu = torch.zeros(1, 3, *size)
        levels = Levels(model, lambda: run_model(model, on_cpu), size, named_outputs)

        def place(tap: Tap) -> Tap:
            return levels.find(tap) if named_outputs(model, tap.path) else tap

        found = []
        for term in terms:
            where = f"{self.where.partition(' ')[0]} {term.key}"
            with naming(f"{where}.loss"):
                check_crossed_boxes(model, term.parts.get("loss"))
            with naming(f"{where}.teacher"):
                found.append(levels.of_scores(term).with_teacher_taps(place))
        return found

    def _images(
        self, model: nn.Module, loaded: Order | None, student: ImageFormat | None
    ) -> KnownFormat:
        """Those that it takes."""
        known = format_of(model, student)
        if self.images is not None:
            return self.images.in_place_of(known, self.where, student)
        # A training that loaded its images otherwise; if it is not known, as the student's does.
        if known.format is not None and loaded and student is not None and student.loaded:
            return known._replace(format=replace(known.format, loaded=loaded))
        return known

    def _build_model(self) -> tuple[nn.Module, Order | None]:
        """The network, and in which order its training loaded its images."""
        if self.config is None:
            with naming(f"{self.where}.model"):
                return _built(dict(self.model or {})), None
        with naming(f"{self.where}.config"):
            config = open_config(self.config)
        if "model" not in config:
            where = f"{self.where}.config"
            raise InputError.at(where, f"{self.config} defines no model")
        scope = config.get("default_scope") or self._scope()
        # Where it stands beside the model, as in MMPretrain's configs, the Runner puts it in.
        if "data_preprocessor" in config:
            config.model.setdefault("data_preprocessor", config.data_preprocessor)
        with DefaultScope.overwrite_default_scope(scope), naming(f"{self.where}.config"):
            return _built(config.model), _loaded_order(config)

    def _scope(self) -> str:
        """Where a config's names live that does not say so, as MMPretrain's of backbones alone."""
        package = (self.config or "").rpartition("::")[0]
        if package in PACKAGES:
            return package
        current = DefaultScope.get_current_instance()
        return current.scope_name if current else "mmengine"


def _loaded_order(config: Config) -> Order | None:
    return configured_order((config.get("train_dataloader") or {}).get("dataset"))


def _built(model: Any) -> nn.Module:
    try:
        return MODELS.build(model)
    # MMEngine's for a type that is not registered.
    except KeyError as error:
        raise ValueError(error.args[0]) from error
