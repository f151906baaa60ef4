"""Whether a run that is resumed has the teachers that it began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmkd.checkpoint import LoadReport
from mmkd.checkpoint.digests import tensors_digest
from mmkd.checkpoint.loading import is_used
from mmkd.errors import InputError

__all__ = ["check_same_teachers", "digests_of"]


def digests_of(teachers: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the weights of built teachers, as far as these run, whatever file they come from
    and wherever they run; a teacher from memory has none."""
    return {
        name: _digest(teacher.loaded, teacher.ran)
        for name, teacher in teachers.items()
        if teacher.loaded is not None
    }


def check_same_teachers(where: str, noted: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Raises where a teacher is another than it was.

    A run that changes its teacher half way is neither's: what it ends in can be repeated from no
    config, and nothing in its log would say so.

    Args:
        where: The setting, for errors.
        noted: From a checkpoint; a teacher that is not noted there is not looked at.
        digests: Of the teachers now.

    Raises:
        InputError: One has other weights.
    """
    for name, digest in digests.items():
        if noted.get(name, digest) != digest:
            raise InputError.at(
                where if len(digests) == 1 else f"{where}.{name}",
                f"its weights (sha256 {digest[:12]}) are not those that the run to be resumed "
                f"began with ({noted[name][:12]}): give the same checkpoint, or start a new "
                "run from the student's weights, without resume",
            )


def _digest(loaded: LoadReport, ran: set[str]) -> str:
    """Of the weights as the file has them: the model's may be folded, rounded or elsewhere."""
    return tensors_digest(
        (name, value)
        for name, value in sorted(loaded.source.weights.items())
        if is_used(name, ran) and name not in loaded.unexpected
    )
