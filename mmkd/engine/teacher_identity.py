"""Whether a resumed run has the teachers that it began with."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mmkd.distillation import FeatureSource
from mmkd.errors import InputError

__all__ = ["check_same_teachers", "identities"]


def identities(teachers: Mapping[str, FeatureSource]) -> dict[str, str | None]:
    """The SHA-256 of each teacher's weights file; None for one that was handed over in memory."""
    found = {
        name: re.search(r"\(sha256 ([0-9a-f]{64})\)", teacher.introduction)
        for name, teacher in teachers.items()
    }
    return {name: match and match[1] for name, match in found.items()}


def check_same_teachers(
    owner: str, noted: Mapping[str, str | None], teachers: Mapping[str, FeatureSource]
) -> None:
    """Raises where a file's weights are not those that the stopped run was taught by.

    An error, and no word in the log: half a run under one teacher and half under another is a
    mistake in all but the rarest case, and its result looks like any other.

    Args:
        owner: Whose settings errors name.
        noted: :func:`identities` of the stopped run.
        teachers: Of the run that goes on.

    Raises:
        InputError: Another teacher, naming the setting and both digests.
    """
    for name, found in identities(teachers).items():
        expected = noted.get(name)
        if expected and found and expected != found:
            where = f"{owner} teacher" + (f".{name}" if len(teachers) > 1 else "")
            raise InputError.at(
                where,
                f"the run that is resumed was taught by a file of sha256 {expected}, this one's is "
                f"{found}: give the file that it began with, or start a new run",
            )
