"""A network that was pickled as a whole: its tensors and modules by name, its plain attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmkd.checkpoint.pickled import Pickled

__all__ = ["PickledNetwork", "network_in"]

# Far beyond any network's; a file can name one module in many places, or in itself.
_MOST_MODULES, _DEEPEST, _MOST_VALUES = 50_000, 50, 100_000


@dataclass(frozen=True)
class PickledNetwork:
    """What is known of it without building anything.

    Args:
        modules: By name, the network itself being ``''``.
    """

    modules: Mapping[str, Pickled]

    @property
    def type_name(self) -> str:
        """Of its class, as ``'models.yolo.Model'``."""
        return self.modules[""].name

    def attribute(self, name: str, module: str = "") -> Any:
        """An attribute that is made of plain values.

        Args:
            name: Of the attribute.
            module: Whose it is.

        Returns:
            A copy; None where there is no such attribute, or another kind of value in it.
        """
        try:
            return _plain(self.modules[module].state.get(name), [_MOST_VALUES])
        except (TypeError, RecursionError):
            return None

    def weights(self) -> dict[str, Tensor]:
        """Its parameters and buffers, as its ``state_dict()`` would name them."""
        found: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            left_out = module.state.get("_non_persistent_buffers_set") or ()
            for kind in ("_parameters", "_buffers"):
                for key, value in (module.state.get(kind) or {}).items():
                    if isinstance(value, Tensor) and key not in left_out:
                        found[f"{name}.{key}".removeprefix(".")] = value
        return found


def network_in(content: Any) -> PickledNetwork | None:
    """The network that a checkpoint holds: its averaged one (``ema``) before ``model``, as its
    trainer takes them; or the file's only content.

    Raises:
        ValueError: More modules than any network has.
    """
    found = [content]
    if isinstance(content, Mapping):
        found = [content.get("ema"), content.get("model")]
    for each in found:
        if _is_module(each):
            return PickledNetwork(dict(_modules_of(each)))
    return None


def _is_module(value: Any) -> bool:
    return (
        isinstance(value, Pickled)
        and isinstance(value.state, Mapping)
        and isinstance(value.state.get("_modules"), Mapping)
    )


def _modules_of(network: Pickled) -> Iterator[tuple[str, Pickled]]:
    waiting = [("", network)]
    for _ in range(_MOST_MODULES):
        if not waiting:
            return
        name, module = waiting.pop()
        yield name, module
        children = [(k, v) for k, v in module.state["_modules"].items() if _is_module(v)]
        if children and name.count(".") >= _DEEPEST:
            break
        waiting += [(f"{name}.{key}".removeprefix("."), v) for key, v in reversed(children)]
    raise ValueError("its network holds more modules than any, or itself")


def _plain(value: Any, left: list[int]) -> Any:
    """A copy, for which a file cannot ask much memory.

    Raises:
        TypeError: It holds something else, or too much.
    """
    left[0] -= 1
    if left[0] < 0:
        raise TypeError
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return type(value)(_plain(each, left) for each in value)
    if isinstance(value, dict):
        return {_plain(k, left): _plain(v, left) for k, v in value.items()}
    raise TypeError
