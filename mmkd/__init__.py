"""Knowledge distillation for detectors and classifiers, as one more entry in the loss dict.

Importing mmkd puts a stand-in in the place of mmcv's compiled extension, where that is missing, and
nothing else: its parts are imported when they are first named, in code or, as ``mmkd.X``, in a
config.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mmkd import ops

if TYPE_CHECKING:
    from mmkd import losses, normalizers, projectors
    from mmkd.distiller import FeatureDistiller
    from mmkd.engine.mmengine.alignment_hook import ClassifierAlignmentHook
    from mmkd.engine.mmengine.distill_hook import DistillHook
    from mmkd.engine.mmengine.dynamics_hook import DynamicsHook

__all__ = [
    "ClassifierAlignmentHook",
    "DistillHook",
    "DynamicsHook",
    "FeatureDistiller",
    "losses",
    "normalizers",
    "ops",
    "projectors",
]
__version__ = "0.1.0"

_HOMES = {
    "ClassifierAlignmentHook": "mmkd.engine.mmengine.alignment_hook",
    "DistillHook": "mmkd.engine.mmengine.distill_hook",
    "DynamicsHook": "mmkd.engine.mmengine.dynamics_hook",
    "FeatureDistiller": "mmkd.distiller",
}

ops.install()


def __getattr__(name: str) -> Any:
    """A public name, or a submodule, on its first use."""
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif not name.startswith("_") and find_spec(f"mmkd.{name}") is not None:
        value = import_module(f"mmkd.{name}")
    else:
        raise AttributeError(f"module 'mmkd' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
