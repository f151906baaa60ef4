"""Registration of classes whose base is MMPretrain's.

Its import takes seconds, and detectors do not need it: the module of such a class is imported when
a config first names it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmkd.extras import extra
from mmkd.registry import MODELS

__all__: list[str] = []


def _register(name: str, module: str) -> None:
    def build(**settings: Any) -> Any:
        with extra("mmpretrain", f"mmkd.{name}"):
            home = import_module(module)
        return getattr(home, name)(**settings)

    MODELS.register_module(name=name, module=build)


_register("CivT", "mmkd.models.civt")
_register("CivTClsHead", "mmkd.models.civt")
_register("ConnectorClsHead", "mmkd.models.heads")
_register("ContextClsHead", "mmkd.models.context_head")
_register("DeiTDistillHead", "mmkd.models.heads")
_register("MultiViewPreprocessor", "mmkd.models.views")
_register("RedNet", "mmkd.models.rednet")
_register("RotationPreprocessor", "mmkd.models.views")
