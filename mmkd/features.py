"""What a feature is: tapped from a named module, viewed as samples.

N images, C channels, H x W locations, L tokens, M samples. A feature is ``[N, C]``,
``[N, C, H, W]`` or ``[N, L, C]``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mmkd.token_grids import token_grid

__all__ = [
    "EVERY_RUN",
    "FeatureTaps",
    "Level",
    "OwnHook",
    "Stride",
    "as_samples",
    "channels_of",
    "check_layout",
    "entries",
    "evaluation_mode",
    "find_module",
    "levels_by_stride",
    "of_stride",
    "outputs_when_run",
    "pair_as_maps",
    "pair_as_samples",
    "pooled",
    "select",
    "without_extra_tokens",
]

# At the end of a path: every run of the module in a forward pass, each an output of its own.
EVERY_RUN = "*"


def find_module(model: nn.Module, path: str) -> nn.Module:
    """The module of ``model`` that is called ``path``, as ``named_modules`` spells it.

    Args:
        model: The model.
        path: Of the module; a star at its end (see :class:`FeatureTaps`) does not count.

    Raises:
        ValueError: There is none; close matches are listed.
    """
    path = path.removesuffix(EVERY_RUN)
    modules = dict(model.named_modules(remove_duplicate=False))
    if path in modules:
        return modules[path]
    close = difflib.get_close_matches(path, modules, n=5, cutoff=0.4)
    top = [name for name, _ in model.named_children()]
    raise ValueError(
        f"{type(model).__name__} has no module {path!r}. "
        + (f"Close matches: {', '.join(close)}. " if close else "")
        + f"Its top-level modules: {', '.join(top)}."
    )


class OwnHook:
    """A hook of one module alone: a copy of the module, or its pickle, goes without.

    Args:
        module: Whose hook it is.
        call: What is called, as torch calls hooks of its kind.
    """

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        self._module, self._call = module, call

    def __call__(self, module: nn.Module, *args: Any) -> Any:
        return self._call(module, *args) if module is self._module else None

    def __deepcopy__(self, memo: Any) -> Callable[..., None]:
        return _nothing

    def __reduce__(self) -> tuple[Any, ...]:
        return _without_hook, ()


def _nothing(*args: Any) -> None: ...


def _without_hook() -> Callable[..., None]:
    return _nothing


class _Complete(BaseException):
    """Ends a forward pass whose every tap has fired; no ``except Exception`` may swallow it."""


class FeatureTaps:
    """Records the outputs of named modules of a model.

    Nothing is recorded outside :meth:`recording`, so that recomputed forwards (activation
    checkpointing) and evaluation leave no trace.

    A module that serves every level of a detector's head runs once a level. Its path takes a star
    (``'bbox_head.gfl_cls*'``), and its output is the list of what its runs returned.

    Args:
        model: The model to tap.
        paths: Module names, as ``named_modules`` spells them.
        stop_when_complete: Inside :meth:`recording`, end the forward pass as soon as every
            tapped module has run; one with a star as often as it did before.

    Raises:
        ValueError: A path names no module.
    """

    def __init__(
        self, model: nn.Module, paths: Iterable[str], *, stop_when_complete: bool = False
    ) -> None:
        self.paths = tuple(dict.fromkeys(paths))
        self._stop_when_complete = stop_when_complete
        self._calls: dict[str, list[tuple[Any, dict[int | str, int]]]] = {}
        # How often each runs; of those with a star the first forward pass tells.
        self._runs = {path: 1 for path in self.paths if not path.endswith(EVERY_RUN)}
        self._armed = False
        modules = [find_module(model, path) for path in self.paths]
        self._handles = [
            module.register_forward_hook(OwnHook(module, self._recorder(path)))
            for path, module in zip(self.paths, modules, strict=True)
        ]

    def _recorder(self, path: str) -> Any:
        def record(module: nn.Module, args: Any, output: Any) -> None:
            if not self._armed:
                return
            self._calls.setdefault(path, []).append((output, _versions(output)))
            if self._stop_when_complete and self._is_complete():
                raise _Complete

        return record

    def _is_complete(self) -> bool:
        return len(self._runs) == len(self.paths) and all(
            len(self._calls.get(path, ())) >= runs for path, runs in self._runs.items()
        )

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records while it lasts, beginning empty."""
        self.arm()
        try:
            yield
        except _Complete:
            pass
        finally:
            self._armed = False

    def disarm(self) -> None:
        """Stops recording and forgets what was recorded."""
        self._armed = False
        self._calls = {}

    def rest(self) -> None:
        """Stops recording; what was recorded stays for :meth:`take`."""
        self._armed = False

    def arm(self) -> None:
        """Forgets what was recorded and starts recording."""
        self.disarm()
        self._armed = True

    def take(self) -> dict[str, Any]:
        """The recorded output of every path; stops recording and forgets them.

        Raises:
            RuntimeError: A tapped module did not run, ran more often than it should, or its output
                was overwritten.
        """
        self._armed = False
        calls, self._calls = self._calls, {}
        return {path: self._output(path, calls.get(path, [])) for path in self.paths}

    def _output(self, path: str, calls: list[tuple[Any, dict[int | str, int]]]) -> Any:
        name, count = path.removesuffix(EVERY_RUN), len(calls)
        if not calls:
            raise RuntimeError(f"the module {name!r} did not run in this forward pass")
        runs = self._runs.setdefault(path, count)
        if count > 1 and not path.endswith(EVERY_RUN):
            raise RuntimeError(
                f"the module {name!r} ran {count} times in one forward pass: tap a module that "
                f"runs once, such as the one that calls it; or all of its runs, as {path + '*'!r}"
            )
        if count != runs:
            raise RuntimeError(
                f"the module {name!r} ran {count} times in one forward pass, and {runs} in others"
            )
        outputs = [_as_returned(name, output, versions) for output, versions in calls]
        return outputs if path.endswith(EVERY_RUN) else outputs[0]

    def detach(self) -> None:
        """Removes the hooks from the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class _Overwritten(NamedTuple):
    """In the place of a feature that is no longer what its module returned."""

    path: str

    @property
    def error(self) -> RuntimeError:
        return RuntimeError(
            f"what the module {self.path!r} returned was overwritten in place by what follows it "
            "(an activation, perhaps): tap the module that calls both"
        )


def _versions(output: Any) -> dict[int | str, int]:
    """How often each tensor that it holds was written to."""
    return {
        level: each._version for level, each in entries(output).items() if isinstance(each, Tensor)
    }


def _as_returned(path: str, output: Any, versions: Mapping[int | str, int]) -> Any:
    """An output, of which the levels that were overwritten may not be selected."""
    after = _versions(output)
    lost = {level for level, version in versions.items() if after.get(level) != version}
    if not lost:
        return output
    marker = _Overwritten(path)
    if isinstance(output, Tensor):
        raise marker.error
    kept = {key: marker if key in lost else each for key, each in entries(output).items()}
    return kept if isinstance(output, Mapping) else list(kept.values())


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; each module's own is put back exactly."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode


def outputs_when_run(
    model: nn.Module, paths: Iterable[str], run: Callable[[], Any]
) -> dict[str, Any]:
    """Outputs of named modules in one forward pass in evaluation mode, without gradients.

    Args:
        model: Its modules' modes are put back exactly.
        paths: As ``named_modules`` spells them.
        run: The forward pass, which ends where all of them have run.

    Raises:
        ValueError: A path names no module.
        RuntimeError: A module did not run.
    """
    taps = FeatureTaps(model, paths, stop_when_complete=True)
    try:
        with evaluation_mode(model), torch.no_grad(), taps.recording():
            run()
        return taps.take()
    finally:
        taps.detach()


@dataclass(frozen=True)
class Stride:
    """A level that is named by its stride.

    Args:
        pixels: Of the image between two neighbours of the map; None for every stride.
        is_nearest: Whether another stride will do where there is none of these.
    """

    pixels: int | None
    is_nearest: bool = False

    def __str__(self) -> str:
        return "every stride" if self.pixels is None else f"stride {self.pixels}"


# Which of a module's outputs: a position in a tuple or list, a key of a dict, or by the stride.
Level = int | str | Stride


def entries(output: Any) -> dict[int | str, Any]:
    """What a module's output holds, by the level that names it; a tensor is its own last."""
    if isinstance(output, Tensor):
        return {-1: output}
    if isinstance(output, Mapping):
        return dict(output)
    return dict(enumerate(output)) if isinstance(output, tuple | list) else {}


def levels_by_stride(output: Any, size: tuple[int, int]) -> dict[int, int | str]:
    """Where the maps of a module's output lie in it, from fine to coarse; of one stride the last.

    Args:
        output: A tensor, or a tuple, list or dict of them; what is no map ``[N, C, H, W]`` is left
            out.
        size: Height and width of the image in pixels.
    """
    found = {}
    for level, feature in entries(output).items():
        if isinstance(feature, Tensor) and feature.ndim == 4:
            # The side of which a border takes more cells tells less.
            sides = zip(size, feature.shape[2:], strict=True)
            found[round(max(pixels / cells for pixels, cells in sides))] = level
    return dict(sorted(found.items()))


def of_stride(stride: Stride, levels: Mapping[int, Any], where: str, last: Any) -> Any:
    """What has a stride.

    Args:
        stride: Of some pixels.
        levels: By stride.
        where: Whose levels they are, for errors.
        last: What is nearest where nothing has a stride.

    Raises:
        ValueError: None has it.
    """
    pixels = stride.pixels
    assert pixels is not None
    if pixels in levels:
        return levels[pixels]
    if stride.is_nearest:
        nearest = min(levels, key=lambda each: (abs(math.log(each / pixels)), -each), default=None)
        return last if nearest is None else levels[nearest]
    has = (
        f"strides {', '.join(map(str, levels))}"
        if levels
        else "no maps, whose stride is known: give student_level or teacher_level instead"
    )
    raise ValueError(f"stride {pixels} was asked of {where!r}, which has {has}")


def select(output: Any, level: Level = -1) -> Tensor:
    """One feature of a module's output: itself if a tensor, else the entry ``level``.

    Args:
        output: A tensor, or a tuple, list or dict of them.
        level: The position in a tuple or list (negative from the end), or the key of a dict.

    Raises:
        ValueError: No such entry, or the entry is no feature of rank 2, 3 or 4.
        RuntimeError: The entry was overwritten after its module had returned it.
    """
    if isinstance(output, Tensor):
        if level not in (0, -1):
            raise ValueError(f"level {level!r} was asked of a single tensor: use -1")
        feature = output
    elif isinstance(output, tuple | list):
        if not isinstance(level, int) or not -len(output) <= level < len(output):
            raise ValueError(f"level {level!r} was asked of {len(output)} outputs")
        feature = output[level]
    elif isinstance(output, dict):
        key = list(output)[-1] if level == -1 and output else level
        if key not in output:
            raise ValueError(f"level {level!r} was asked of the keys {list(output)}")
        feature = output[key]
    else:
        raise ValueError(f"the output is a {type(output).__name__}, which holds no feature")
    return _checked(feature)


def _checked(feature: Any) -> Tensor:
    if isinstance(feature, _Overwritten):
        raise feature.error
    if not isinstance(feature, Tensor) or feature.ndim not in (2, 3, 4):
        found = (
            f"shape {tuple(feature.shape)}"
            if isinstance(feature, Tensor)
            else f"a {type(feature).__name__}"
        )
        raise ValueError(f"a feature is [N, C], [N, C, H, W] or [N, L, C], got {found}")
    return feature


def channels_of(feature: Tensor) -> int:
    """C of a feature."""
    return feature.shape[1] if feature.ndim == 4 else feature.shape[-1]


def check_layout(feature: Tensor, size: tuple[int, int]) -> None:
    """Raises where a feature of one image is plainly laid out in another way than ours.

    Args:
        feature: ``[1, C]``, ``[1, C, H, W]`` or ``[1, L, C]``, it is hoped.
        size: Height and width of the image.

    Raises:
        ValueError: It is ``[1, H, W, C]`` or ``[L, 1, C]``.
    """
    shape = tuple(feature.shape)
    of = f"the feature {shape} of one image of {size[0]} x {size[1]} pixels"
    if feature.ndim == 4 and _is_grid(shape[1:3], size) and not _is_grid(shape[2:], size):
        raise ValueError(
            f"{of} has its channels last, expected [N, C, H, W]: tap a module that returns "
            "it so, or wrap the network in one that permutes its outputs by (0, 3, 1, 2)"
        )
    if feature.ndim == 3 and len(feature) > 1 and shape[1] == 1:
        raise ValueError(
            f"{of} has its tokens first, expected [N, L, C]: tap a module that returns it so, "
            "or wrap the network in one that transposes its outputs"
        )


def _is_grid(grid: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether rows and columns may have one stride, a row or column more or less at the border."""
    least = max(pixels / (cells + 1) for pixels, cells in zip(size, grid, strict=True))
    most = min(pixels / max(cells - 1, 0.5) for pixels, cells in zip(size, grid, strict=True))
    return least <= most


def without_extra_tokens(feature: Tensor, count: int) -> Tensor:
    """``[N, L, C]`` without its ``count`` leading tokens (class, distillation).

    Raises:
        ValueError: ``count`` is above 0 and the feature holds no more tokens than that.
    """
    if count == 0:
        return feature
    if feature.ndim != 3 or feature.shape[1] <= count:
        raise ValueError(f"no {count} extra tokens can be left out of shape {tuple(feature.shape)}")
    return feature[:, count:]


def _as_map(tokens: Tensor, beside: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Tokens, row after row, as a map."""
    n, length, channels = tokens.shape
    if beside.ndim == 4 and beside.shape[2] * beside.shape[3] == length:
        height, width = beside.shape[2:]
    elif size is not None:
        height, width = token_grid(length, size)
    else:
        raise ValueError(
            f"the grid of {length} tokens depends on the images: give their size=(height, width) "
            "in pixels, or use view='global'"
        )
    return tokens.transpose(1, 2).reshape(n, channels, height, width)


def pooled(feature: Tensor) -> Tensor:
    """The mean over locations: ``[N, C]``, ``[N, C, H, W]`` or ``[N, L, C]`` to ``[N, C]``."""
    if feature.ndim == 4:
        return feature.mean(dim=(2, 3))
    return feature.mean(dim=1) if feature.ndim == 3 else feature


def as_samples(feature: Tensor) -> Tensor:
    """Every location as a sample: ``[N, C, H, W]`` or ``[N, L, C]`` to ``[M, C]``."""
    if feature.ndim == 4:
        feature = feature.permute(0, 2, 3, 1)
    return feature.reshape(-1, feature.shape[-1])


def _check_pair(student: Tensor, teacher: Tensor) -> None:
    for feature in (student, teacher):
        _checked(feature)
    if len(student) != len(teacher):
        raise ValueError(
            f"the student's feature holds {len(student)} images, the teacher's {len(teacher)}"
        )


def pair_as_samples(
    student: Tensor, teacher: Tensor, view: str, size: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Views a pair of features as samples, ``[M, C_s]`` and ``[M, C_t]``, in the same order.

    Args:
        student: ``[N, C_s]``, ``[N, C_s, H, W]`` or ``[N, L, C_s]``.
        teacher: The same for C_t; the grids may differ.
        view: ``'global'``: M = N, averaged over locations. ``'dense'``: every location is a
            sample; on each axis the coarser grid wins and the other side is average-pooled
            to it. ``'flat'``: M = N, all entries of an image in a row, of either grid.
        size: Height and width of the images in pixels, by which tokens find their grid. Needed
            unless there are as many on the other side.

    Raises:
        ValueError: An unknown view, a feature of another rank, different N, a dense view
            of a vector beside a map, or tokens whose grid cannot be told.
    """
    if view not in ("dense", "global", "flat"):
        raise ValueError(f"view must be 'dense', 'global' or 'flat', got {view!r}")
    _check_pair(student, teacher)
    if view == "global":
        return pooled(student), pooled(teacher)
    if view == "flat":
        return student.flatten(1), teacher.flatten(1)
    if (student.ndim == 2) != (teacher.ndim == 2):
        raise ValueError(
            f"view='dense' cannot pair {tuple(student.shape)} with {tuple(teacher.shape)}: "
            "use view='global' where one side is a vector"
        )
    if student.shape[1:-1] != teacher.shape[1:-1] or student.ndim == 4:
        student, teacher = pair_as_maps(student, teacher, size)
    return as_samples(student), as_samples(teacher)


def pair_as_maps(
    student: Tensor, teacher: Tensor, size: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """A pair of features as maps on a common grid, ``[N, C_s, h, w]`` and ``[N, C_t, h, w]``.

    On each axis the coarser grid wins, and the other side is average-pooled to it.

    Args:
        student: ``[N, C_s, H, W]`` or ``[N, L, C_s]``.
        teacher: The same for C_t; the grids may differ.
        size: Height and width of the images in pixels, by which tokens find their grid. Needed
            unless the other side is a map of as many locations.

    Raises:
        ValueError: A vector, tokens whose grid cannot be told, or different N.
    """
    _check_pair(student, teacher)
    if student.ndim == 2 or teacher.ndim == 2:
        raise ValueError(
            f"view='map' pairs maps, got {tuple(student.shape)} and {tuple(teacher.shape)}: tap a "
            "module that returns [N, C, H, W]"
        )
    if student.ndim == 3:
        student = _as_map(student, teacher, size)
    if teacher.ndim == 3:
        teacher = _as_map(teacher, student, size)
    grid = min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3])
    student, teacher = (
        f if f.shape[2:] == grid else adaptive_avg_pool2d(f, grid) for f in (student, teacher)
    )
    return student, teacher
