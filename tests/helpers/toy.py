"""A small but real MMEngine model, data set and metric, and Runner configs around them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import DATASETS, METRICS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from mmkd import DistillHook

SIZE = 16
PREPROCESSOR = dict(
    type="ImgDataPreprocessor",
    mean=[120.0, 110.0, 100.0],
    std=[60.0, 55.0, 50.0],
    bgr_to_rgb=True,
    pad_size_divisor=8,
)


class ToyBackbone(nn.Module):
    """Two levels: ``[N, width, H/2, W/2]`` and ``[N, 2 width, H/4, W/4]``."""

    def __init__(self, width: int, norm: bool, norm_eval: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(2 * width) if norm else nn.Identity()
        self.norm_eval = norm_eval

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.relu(self.bn1(self.conv1(x)))
        return first, torch.relu(self.bn2(self.conv2(first)))

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        """Returns nothing, as MMDetection's backbones."""
        super().train(mode)
        if self.norm_eval:
            self.bn1.eval()
            self.bn2.eval()


@MODELS.register_module()
class ToyModel(BaseModel):
    """Backbone, neck, dropout and a linear head on the pooled deeper level."""

    def __init__(
        self,
        width: int = 4,
        norm: bool = True,
        norm_eval: bool = False,
        dropout: float = 0.2,
        data_preprocessor: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(PREPROCESSOR))
        self.backbone = ToyBackbone(width, norm, norm_eval)
        self.neck = nn.Conv2d(2 * width, 8, 1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 3)

    def _logits(self, inputs: Tensor) -> Tensor:
        feature = torch.relu(self.neck(self.backbone(inputs)[-1]))
        return self.head(self.dropout(feature.mean(dim=(2, 3))))

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor") -> Any:
        logits = self._logits(inputs)
        if mode == "tensor":
            return logits
        if mode == "predict":
            for sample, scores in zip(data_samples, logits, strict=True):
                sample.pred = int(scores.argmax())
            return data_samples
        labels = torch.tensor([sample.label for sample in data_samples], device=logits.device)
        return dict(
            loss_cls=cross_entropy(logits, labels),
            # A list, as detectors return one loss per level.
            losses_size=[logits.square().mean() * 0.01, logits.abs().mean() * 0.01],
            accuracy=(logits.argmax(1) == labels).float().mean(),
        )


@MODELS.register_module()
class ToyBypass(ToyModel):
    """Computes its losses without a call of itself: nothing that joins there can fire."""

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        data = self.data_preprocessor(data, True)
        loss, logged = self.parse_losses(self.forward(**data, mode="loss"))
        optim_wrapper.update_params(loss)
        return logged


@MODELS.register_module()
class ToyVolume(ToyModel):
    """Its neck returns a feature of rank 5."""

    def _logits(self, inputs: Tensor) -> Tensor:
        self.volume(self.backbone(inputs)[-1])
        return super()._logits(inputs)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.volume = nn.Unflatten(1, (2, -1))


@DATASETS.register_module()
class ToyImages(Dataset):
    """Fixed noise images whose brightest channel is their label; flipped at random in training.

    Args:
        length: Number of images.
        sizes: Heights and widths, taken in turn.
        flip: Whether to draw a flip from numpy's global state, as mmcv's transforms do.
    """

    metainfo: ClassVar[dict] = dict(classes=("blue", "green", "red"))

    def __init__(
        self, length: int = 16, sizes: Any = ((SIZE, SIZE),), flip: bool = False, offset: int = 0
    ) -> None:
        self.length, self.sizes, self.flip, self.offset = length, sizes, flip, offset

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(self.offset + index)
        height, width = self.sizes[index % len(self.sizes)]
        label = index % 3
        image = torch.randint(0, 180, (3, height, width), generator=generator)
        image[label] += 75
        if self.flip and np.random.rand() < 0.5:
            image = image.flip(2)
        sample = BaseDataElement(metainfo=dict(img_shape=(height, width), sample_idx=index))
        sample.label = label
        return dict(inputs=image.to(torch.uint8), data_samples=sample)


@DATASETS.register_module()
class LabelledImages(ToyImages):
    """Toy images whose labels are where MMPretrain has them."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        item["data_samples"].gt_label = torch.tensor([item["data_samples"].label])
        return item


@METRICS.register_module()
class ToyAccuracy(BaseMetric):
    """Share of right predictions."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results += [float(sample["pred"] == sample["label"]) for sample in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(accuracy=float(np.mean(results)))


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class SeveralOptimizers:
    """One optimizer for the backbone, one for the head."""

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.lr = optim_wrapper_cfg["optimizer"]["lr"]

    def __call__(self, model: ToyModel) -> OptimWrapperDict:
        return OptimWrapperDict(
            backbone=OptimWrapper(torch.optim.SGD(model.backbone.parameters(), self.lr)),
            head=OptimWrapper(torch.optim.SGD(model.head.parameters(), self.lr)),
        )


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ToyLayerwise:
    """Learning rates by depth, for toy models alone."""

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict) -> None:
        self.optimizer = dict(optim_wrapper_cfg["optimizer"])
        self.decay_rate = paramwise_cfg["decay_rate"]

    def __call__(self, model: ToyModel) -> OptimWrapper:
        if type(model) is not ToyModel:
            raise TypeError(f"expected a ToyModel, got {type(model).__name__}")
        self.optimizer.pop("type")
        lr = self.optimizer["lr"]
        groups = [
            dict(params=list(module.parameters()), lr=lr * self.decay_rate**depth)
            for depth, module in enumerate((model.head, model.neck, model.backbone))
        ]
        return OptimWrapper(torch.optim.AdamW(groups, **self.optimizer))


# Runner configs ---------------------------------------------------------------------------

_names = (f"run{i}" for i in itertools.count())


def toy_config(work_dir: Path, **overrides: Any) -> Config:
    """A plain run of 2 epochs of 4 iterations; every run has a name, so a logger, of its own."""
    name = next(_names)
    settings: dict[str, Any] = dict(
        model=dict(type="ToyModel"),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=True),
            dataset=dict(type="ToyImages"),
        ),
        train_cfg=dict(type="EpochBasedTrainLoop", max_epochs=2, val_interval=1),
        optim_wrapper=dict(
            type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.01, weight_decay=0.05)
        ),
        default_hooks=dict(
            logger=dict(type="LoggerHook", interval=1),
            checkpoint=dict(type="CheckpointHook", interval=1),
        ),
        randomness=dict(seed=3),
        default_scope="mmengine",
        log_level="WARNING",
        visualizer=dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")], name=name),
        experiment_name=name,
        work_dir=str(work_dir / name),
    )
    config = Config(settings)
    config.merge_from_dict(overrides)
    return config


VALIDATION: dict[str, Any] = dict(
    val_dataloader=dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(type="ToyImages", length=6, offset=1000),
    ),
    val_cfg=dict(type="ValLoop"),
    val_evaluator=dict(type="ToyAccuracy"),
)


def draw_running_statistics(model: nn.Module) -> None:
    """Such as a training leaves, from the global random state."""
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(std=0.3)
        elif key.endswith("running_var"):
            buffer.uniform_(0.5, 2)


def write_teacher(folder: Path, name: str = "teacher", seed: int = 7, **model: Any) -> dict:
    """Writes a wider toy model's config and weights; the ``teacher`` setting that names them."""
    config = Config(
        dict(default_scope="mmengine", model=dict(type="ToyModel", width=6, dropout=0.0, **model))
    )
    config.dump(folder / f"{name}.py")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = MODELS.build(config.model)
        draw_running_statistics(built)
    torch.save(dict(state_dict=built.state_dict()), folder / f"{name}.pth")
    return dict(config=str(folder / f"{name}.py"), checkpoint=str(folder / f"{name}.pth"))


# One term at a fixed weight, which is on from the first iteration.
LAST: dict[str, Any] = dict(backbone=dict())


def distill(teacher: Mapping[str, Any], terms: Any = LAST, **settings: Any) -> dict[str, Any]:
    """The ``custom_hooks`` override of a distilled run."""
    hook = dict(
        type="mmkd.DistillHook",
        teacher=dict(teacher),
        terms=terms,
        **{"probe_size": 32, **settings},
    )
    return dict(custom_hooks=[hook])


class Probe(Hook):
    """Calls functions at a Runner's hook points: ``Probe(after_train_iter=f)``, ``f(runner)``."""

    priority = "LOWEST"

    def __init__(self, **calls: Any) -> None:
        for name, call in calls.items():
            setattr(self, name, lambda runner, *args, call=call, **kwargs: call(runner))

    def get_triggered_stages(self) -> list:
        return []


class LossRecorder(Hook):
    """What every iteration logs."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.logged.append({key: float(value.detach()) for key, value in outputs.items()})


def train(config: Config, *hooks: Hook) -> Runner:
    """Trains and returns the Runner."""
    runner = Runner.from_cfg(config)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def distill_hook_of(runner: Runner) -> DistillHook:
    """The Runner's DistillHook."""
    return next(hook for hook in runner.hooks if isinstance(hook, DistillHook))


def checkpoint_of(runner: Runner, name: str) -> dict[str, Any]:
    """A checkpoint that the Runner saved."""
    return torch.load(Path(runner.work_dir) / name, weights_only=False)


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """Where two nested structures differ by a single bit."""
    if isinstance(left, Tensor):
        equal = isinstance(right, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
        return [] if equal else [path]
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        if list(left) != list(right):
            return [f"{path}: keys {list(left)} and {list(right)}"]
        return [d for key in left for d in differences(left[key], right[key], f"{path}.{key}")]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        if len(left) != len(right):
            return [f"{path}: lengths {len(left)} and {len(right)}"]
        pairs = enumerate(zip(left, right, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{path}[{i}]")]
    return [] if left == right else [f"{path}: {left!r} and {right!r}"]
