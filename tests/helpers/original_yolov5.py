"""Checkpoints as the YOLOv5 repository pickles them: whole modules of its ``models.yolo`` and
``models.common``, whose names and attributes those here have. They run too."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Original", "architecture", "make_original", "save_original"]


def architecture(width: float = 0.25, depth: float = 0.33, nc: int = 80) -> dict[str, Any]:
    """YOLOv5's, as a checkpoint's ``yaml`` states it; n has the default width and depth."""
    down = {i: [-1, 1, "Conv", [c, 3, 2]] for i, c in ((1, 128), (3, 256), (5, 512), (7, 1024))}
    c3 = {2: (3, 128), 4: (6, 256), 6: (9, 512), 8: (3, 1024)}
    backbone = [[-1, 1, "Conv", [64, 6, 2, 2]]]
    for i in range(1, 9):
        backbone.append(down.get(i) or [-1, c3[i][0], "C3", [c3[i][1]]])
    backbone.append([-1, 1, "SPPF", [1024, 5]])
    up = [-1, 1, "nn.Upsample", [None, 2, "nearest"]]
    head = [
        *([-1, 1, "Conv", [512, 1, 1]], up, [[-1, 6], 1, "Concat", [1]]),
        *([-1, 3, "C3", [512, False]], [-1, 1, "Conv", [256, 1, 1]], up),
        *([[-1, 4], 1, "Concat", [1]], [-1, 3, "C3", [256, False]], [-1, 1, "Conv", [256, 3, 2]]),
        *([[-1, 14], 1, "Concat", [1]], [-1, 3, "C3", [512, False]], [-1, 1, "Conv", [512, 3, 2]]),
        *([[-1, 10], 1, "Concat", [1]], [-1, 3, "C3", [1024, False]]),
        [[17, 20, 23], 1, "Detect", ["nc", "anchors"]],
    ]
    anchors = [[8 * 2**level + side for side in range(6)] for level in range(3)]
    content = dict(nc=nc, depth_multiple=depth, width_multiple=width, anchors=anchors)
    return copy.deepcopy({**content, "backbone": backbone, "head": head, "ch": 3})


class Conv(nn.Module):
    def __init__(self, inputs: int, outputs: int, k: int = 1, s: int = 1, p: Any = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, k, s, k // 2 if p is None else p, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, width: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2, self.add = Conv(width, width), Conv(width, width, 3), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    def __init__(self, inputs: int, outputs: int, n: int, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1, self.cv2 = Conv(inputs, half), Conv(inputs, half)
        self.cv3 = Conv(2 * half, outputs)
        self.m = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPPF(nn.Module):
    def __init__(self, inputs: int, outputs: int, k: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(inputs, inputs // 2), Conv(2 * inputs, outputs)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.cv1(x)]
        for _ in range(3):
            levels.append(self.m(levels[-1]))
        return self.cv2(torch.cat(levels, 1))


class Concat(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.d = d

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


class Detect(nn.Module):
    """The head with anchors, which Ultralytics lacks."""

    def __init__(self, nc: int, anchors: list[list[int]], inputs: list[int]) -> None:
        super().__init__()
        self.nc, self.no, self.nl, self.na = nc, nc + 5, len(anchors), len(anchors[0]) // 2
        self.grid = [torch.empty(0) for _ in anchors]
        self.stride = torch.tensor([8.0, 16.0, 32.0])
        self.register_buffer("anchors", torch.tensor(anchors).float().view(self.nl, -1, 2))
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in inputs)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [layer(each) for layer, each in zip(self.m, x, strict=True)]


class Original(nn.Module):
    """``models.yolo.Model``, or ``DetectionModel`` from v7 on."""

    def __init__(self, definition: dict[str, Any]) -> None:
        super().__init__()
        self.yaml, self.inplace, self.save = definition, True, []
        self.names = [f"class {index}" for index in range(definition["nc"])]
        self.model = nn.Sequential(*self._layers(definition))
        self.stride = self.model[-1].stride

    def _layers(self, definition: dict[str, Any]) -> Iterator[nn.Module]:
        widths: list[int] = []
        for i, (f, n, kind, args) in enumerate(definition["backbone"] + definition["head"]):
            sources = [f] if isinstance(f, int) else f
            inputs = [widths[j] if i else 3 for j in sources]
            wide = args[0] if isinstance(args[0], int) else 0
            scaled = math.ceil(wide * definition["width_multiple"] / 8) * 8
            repeats = max(round(n * definition["depth_multiple"]), 1) if n > 1 else n
            if kind == "Concat":
                layer, width = Concat(*args), sum(inputs)
            elif kind == "nn.Upsample":
                layer, width = nn.Upsample(*args), inputs[0]
            elif kind == "C3":
                layer, width = C3(inputs[0], scaled, repeats, *args[1:]), scaled
            elif kind == "Detect":
                layer, width = Detect(definition["nc"], definition["anchors"], inputs), 0
            else:
                made = dict(Conv=Conv, SPPF=SPPF)[kind]
                layer, width = made(inputs[0], scaled, *args[1:]), scaled
            layer.i, layer.f, layer.type = i, f, f"models.common.{kind}"
            layer.np = sum(each.numel() for each in layer.parameters())
            widths.append(width)
            yield layer

    def forward(self, x: Tensor) -> Any:
        outputs: list[Any] = []
        for layer in self.model:
            f = layer.f
            given = x if f == -1 else [x if j == -1 else outputs[j] for j in f]
            x = layer(given)
            outputs.append(x)
        return x


def make_original(definition: dict[str, Any] | None = None, seed: int = 3) -> Original:
    """One that looks trained: its BatchNorm has statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Original(definition or architecture())
        for key, buffer in model.named_buffers():
            if key.endswith("running_mean"):
                buffer.normal_(std=0.3)
            elif key.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return model.eval()


@contextmanager
def _as_their_modules(name: str) -> Iterator[None]:
    """The classes here go by the names of theirs, while it lasts."""
    own = dict(common=[Conv, Bottleneck, C3, SPPF, Concat], yolo=[Detect, Original])
    modules = {"models": ModuleType("models")}
    classes = [each for part in own.values() for each in part]
    before = [(each.__module__, each.__qualname__, each.__name__) for each in classes]
    for part, members in own.items():
        modules[f"models.{part}"] = ModuleType(f"models.{part}")
        for each in members:
            called = name if each is Original else each.__name__
            each.__module__, each.__qualname__, each.__name__ = f"models.{part}", called, called
            setattr(modules[f"models.{part}"], called, each)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for key in modules:
            del sys.modules[key]
        for each, names in zip(classes, before, strict=True):
            each.__module__, each.__qualname__, each.__name__ = names


def save_original(file: Path, model: Original, version: int = 6, ema: bool = False) -> Path:
    """Writes it as that version's trainer does; with ``ema``, the averaged one beside an untrained
    one."""
    saved = copy.deepcopy(model).half()
    if version >= 7:
        saved.names = dict(enumerate(saved.names))
    content = dict(epoch=-1, best_fitness=None, updates=None, optimizer=None, model=saved, ema=None)
    content |= dict(opt=dict(weights="", epochs=300), git=dict(commit="0123"), date="2022-11-22")
    if ema:
        content |= dict(model=make_original(model.yaml, seed=99).half(), ema=saved, updates=5)
    with _as_their_modules("DetectionModel" if version >= 7 else "Model"):
        torch.save(content, file)
    return file
