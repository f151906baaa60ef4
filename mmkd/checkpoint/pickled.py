"""Torch files whose pickled objects stay what they are in the file: names, arguments, states."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import torch

from mmkd.checkpoint.safe_globals import global_name, only_allowing
from mmkd.errors import first_few

__all__ = ["HoldsMoreError", "Pickled", "read_pickled"]

# What trainers pickle beside weights. OpenMMLab's: log buffers (with their methods, hence getattr),
# numpy scalars and arrays. Ultralytics' and the YOLOv5 repository's: the model as a whole, and
# options.
_NAMES = {
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    "builtins.slice",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "argparse.Namespace",
    "datetime.datetime",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "types.SimpleNamespace",
}
_MODULES = ("models.", "ultralytics.nn.", "torch.nn.modules.")
_PACKAGES = ("models.", "ultralytics.", "torch.nn.modules.")


class HoldsMoreError(ValueError):
    """A file that names what no trainer pickles beside weights.

    Args:
        file: The file.
        names: Of what it would import.
    """

    def __init__(self, file: Path, names: Sequence[str]) -> None:
        super().__init__(
            f"{file} is no checkpoint, or holds more than weights and is not executed: it names "
            f"{first_few(names)}. If you trust it, allow_pickle=True beside 'checkpoint' or 'yolo' "
            "of a teacher lets it run its code."
        )


class Pickled:
    """Stands for an object of the file. Nothing of the object's own class is imported or called.

    Allowing the real ones would allow everything: ``getattr`` leads from any of them to ``exec``.

    Attributes:
        name: Of its class, or of the function whose result it is: ``'models.yolo.Model'``.
        args: With which it would have been called.
        state: What it would have been given as attributes.
    """

    name: ClassVar[str]
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Pickled:
        """Keeps the arguments; the unpickler makes some objects without ``__init__``.

        Raises:
            UnpicklingError: A module with arguments, by which a few bytes ask for any memory where
                it is built: torch pickles modules without.
        """
        if args and cls.name.startswith(_MODULES):
            raise UnpicklingError(f"{cls.name} with arguments")
        stands = super().__new__(cls)
        stands.args, stands.state = args, None
        return stands

    def __setstate__(self, state: Any) -> None:
        """Keeps the state."""
        self.state = state


def read_pickled(file: Path) -> Any:
    """What ``torch.save`` has written, on the CPU, with :class:`Pickled` for all but tensors,
    containers and plain values.

    Raises:
        HoldsMoreError: It names something that no trainer pickles beside weights, and that is not
            among torch's ``safe_globals`` either.
        Exception: What torch raises for a damaged file.
    """
    # The user's own classes, of which this process knows; they too are not built here.
    own = {global_name(entry) for entry in torch.serialization.get_safe_globals()}
    with only_allowing([]):
        names = sorted(_names_in(file))
    refused = [name for name in names if name not in own and not _is_known(name)]
    if refused:
        raise HoldsMoreError(file, refused)
    with only_allowing([(type("Pickled", (Pickled,), {"name": n}), n) for n in names]):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            # In the older format, names show where they are met. Around them torch advises to
            # execute the file.
            found = re.search(r"GLOBAL (\S+)", str(error))
            if found is None:
                raise
            raise HoldsMoreError(file, [found[1]]) from None


def _is_known(name: str) -> bool:
    return name in _NAMES or name.startswith(_PACKAGES)


def _names_in(file: Path) -> set[str]:
    with file.open("rb") as opened:
        is_archive = opened.read(4) == b"PK\3\4"
    if not is_archive:
        return _NAMES
    return set(torch.serialization.get_unsafe_globals_in_checkpoint(file))
