"""Contents of JSON files with something wrong in them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

__all__ = ["spoiled"]

_VALUES = st.sampled_from(
    [1e39, -1e39, 10**400, "\0", "\ud800", "/dev/zero", "a\x1b[2J\nb", [1], "0", "9" * 5000]
) | st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def spoiled(draw: st.DrawFn, content: Any) -> Any:
    """The content with one value, somewhere, replaced, dropped or repeated."""
    if not isinstance(content, (dict, list)) or not content or draw(st.integers(0, 9)) == 0:
        return draw(_VALUES)
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    key = draw(st.sampled_from(keys))
    copy = content.copy()
    action = draw(st.sampled_from(["inside", "inside", "inside", "drop", "repeat"]))
    if action == "drop":
        del copy[key]
    elif action == "repeat" and isinstance(copy, list):
        copy.append(copy[key])
    else:
        copy[key] = spoiled(draw, copy[key])
    return copy
