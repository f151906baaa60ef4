"""A stand-in for mmcv's compiled extension ``mmcv._ext``, on torchvision's operators and torch.

Where mmcv was installed without its compiled part, ``import mmcv.ops`` ends in ``No module named
'mmcv._ext'`` and no detector can be built. :func:`install` makes that module importable. A compiled
``mmcv._ext`` always wins: the stand-in is asked for only after every ordinary import has failed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

__all__ = ["MissingOperatorError", "install", "is_stand_in"]

EXTENSION = "mmcv._ext"
# Relative to this package; they import torchvision, so only an import of the extension loads them.
OPERATOR_MODULES = (".boxes", ".roi", ".deform", ".focal", ".build_info")


class MissingOperatorError(RuntimeError):
    """An operator was called that only mmcv's compiled extension has."""


class _StandInLoader(Loader):
    def exec_module(self, module: ModuleType) -> None:
        for name in OPERATOR_MODULES:
            operators = importlib.import_module(name, __package__)
            for operator in operators.__all__:
                setattr(module, operator, getattr(operators, operator))
        module.__getattr__ = _missing_operator  # type: ignore[method-assign]


class _StandInFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != EXTENSION:
            return None
        return ModuleSpec(fullname, _StandInLoader(), origin=__name__)


def _missing_operator(name: str) -> Callable[..., NoReturn]:
    """Answer for an operator that is not here: mmcv looks all of them up, and calls only a few."""
    if name.startswith("__"):
        raise AttributeError(f"module {EXTENSION!r} has no attribute {name!r}")

    def operator(*args: object, **kwargs: object) -> NoReturn:
        raise MissingOperatorError(
            f"mmcv operator {name!r} exists only in mmcv's compiled extension; this installation "
            "runs on mmkd's stand-in for it, which covers nms, soft-nms, RoIAlign, RoIPool, "
            "deformable convolutions and focal losses. Install a compiled mmcv: build it from "
            "source with `MMCV_WITH_OPS=1 pip install --force-reinstall --no-deps --no-cache-dir "
            "--no-build-isolation --no-binary onedl-mmcv onedl-mmcv` (needs a C++ compiler, and "
            "nvcc for a GPU), or take OpenMMLab's compiled wheel with `mim install mmcv` if it "
            "exists for your torch."
        )

    operator.__name__ = operator.__qualname__ = name
    return operator


def install() -> None:
    """Make ``mmcv._ext`` importable where mmcv has no compiled part.

    Imports neither mmcv nor torchvision, and changes nothing where the compiled extension exists.
    Calling it again does nothing.
    """
    if not any(isinstance(finder, _StandInFinder) for finder in sys.meta_path):
        sys.meta_path.append(_StandInFinder())


def is_stand_in() -> bool:
    """Whether ``mmcv._ext`` is, or when imported would be, the stand-in.

    Imports mmcv. ``False`` where mmcv is not installed.
    """
    try:
        spec = importlib.util.find_spec(EXTENSION)
    except ModuleNotFoundError:
        return False
    return spec is not None and isinstance(spec.loader, _StandInLoader)
