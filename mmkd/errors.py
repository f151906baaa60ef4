"""What is wrong with a file or an option that a user gave."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Says which file or option, what was expected, what was found, and what to do."""
