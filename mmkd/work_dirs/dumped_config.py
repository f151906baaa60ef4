"""Configs as MMEngine's runners write them into work dirs and checkpoints, as plain values."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = ["flatten", "read_dumped_config"]

_Key = TypeVar("_Key")
_NUMBERS = {"inf": math.inf, "nan": math.nan}


def read_dumped_config(text: str) -> dict[str, Any]:
    """Reads a dumped config without executing it, as MMEngine's own reader would.

    Args:
        text: Python assignments of literals and ``dict(...)``. A bare name, which is how a type is
            written, becomes its text.

    Raises:
        ValueError: Anything else.
    """
    try:
        statements = ast.parse(text).body
        return dict(_setting(each) for each in statements)
    except (SyntaxError, AttributeError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"no config that MMEngine wrote: {error}") from error


def _setting(statement: ast.stmt) -> tuple[str, Any]:
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id, _value(statement.value)
    raise ValueError(f"no config that MMEngine wrote: line {statement.lineno} assigns no setting")


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        given = {key: value for part in node.args for key, value in _value(part).items()}
        return given | {_key(part.arg): _value(part.value) for part in node.keywords}
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {ast.literal_eval(_key(key)): _value(value) for key, value in pairs}
    if isinstance(node, ast.List):
        return [_value(each) for each in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(each) for each in node.elts)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.Name | ast.Attribute):
        name = ast.unparse(node)
        return _NUMBERS.get(name, name)
    return ast.literal_eval(node)


def _key(key: _Key | None) -> _Key:
    if key is None:
        raise ValueError("no config that MMEngine wrote: it unpacks a dict")
    return key


def flatten(settings: Mapping[Any, Any]) -> dict[str, Any]:
    """Nested settings by dotted keys: ``custom_hooks.0.teacher.checkpoint``.

    Args:
        settings: Dicts, and lists of dicts, within one another. Other lists stay whole; what is no
            plain value becomes its text.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        nested = _nested(value)
        if nested:
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flatten(nested).items()}
        else:
            flat[str(key)] = _plain(value)
    return flat


def _nested(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    is_list = isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value)
    return dict(enumerate(value)) if is_list else {}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {}
    return value if value is None or isinstance(value, str | int | float) else str(value)
