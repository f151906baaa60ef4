"""One of two training processes; started by torchrun from test_distributed.py.

Usage: torchrun --nproc-per-node 2 two_processes.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner

from helpers.classifier_distillers import TERMS, distiller_config
from helpers.toy import LossRecorder, Probe, distill, distill_hook_of, toy_config, train

JOINED_BATCH = 4


@MODEL_WRAPPERS.register_module()
class OnCpu(MMDistributedDataParallel):
    """MMEngine's wrapper without the device that MMEngine gives it."""

    def __init__(self, module: torch.nn.Module, device_ids: Any = None, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)


def joined_config(folder: Path, teacher: dict, processes: int) -> Config:
    """A run without batch statistics but the distiller's: the same on any number of processes."""
    terms = dict(
        deep=dict(),
        pooled=dict(level=0, view="global", weight=dict(share=0.2)),
        correlation=dict(weight=0.5, loss=dict(type="mmkd.CorrelationLogSumLoss")),
        local=dict(weight=dict(share=0.3), loss=dict(type="mmkd.PKDLoss")),
    )
    config = toy_config(
        folder,
        model=dict(type="ToyModel", norm=False, dropout=0.0),
        **distill(teacher, terms),
        **{"train_dataloader.batch_size": JOINED_BATCH // processes},
    )
    config.optim_wrapper = dict(
        optimizer=dict(type="SGD", lr=0.05, momentum=0.9),
        accumulative_counts=2,
        clip_grad=dict(max_norm=2.0),
    )
    return config


def with_batch_statistics(
    folder: Path, teacher: dict, accumulated: int = 2, **overrides: Any
) -> Config:
    """A run whose processes draw differently."""
    terms = dict(
        deep=dict(weight=dict(share=0.3)),
        connector=dict(level=0, projector=dict(type="mmkd.ConvConnector")),
        off=dict(schedule=dict(end=1)),
    )
    config = toy_config(
        folder,
        randomness=dict(seed=5, diff_rank_seed=True),
        **distill(teacher, terms),
        **overrides,
    )
    config.train_dataloader.dataset.flip = True
    config.optim_wrapper.accumulative_counts = accumulated
    config.optim_wrapper.clip_grad = dict(max_norm=1.0)
    return config


class Record:
    """What the tests compare."""

    def __init__(self) -> None:
        self.losses = LossRecorder()
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.initial: dict[str, torch.Tensor] = {}
        self.final: dict[str, torch.Tensor] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        self.probe = Probe(before_train=self.start, after_train=self.finish)

    def parameters(self, runner: Runner) -> dict[str, torch.Tensor]:
        model = runner.model.module if runner.distributed else runner.model
        hook = distill_hook_of(runner)
        return {
            **{f"student.{name}": p for name, p in model.named_parameters()},
            **{f"projector.{name}": p for name, p in hook.distillers.named_parameters()},
        }

    def start(self, runner: Runner) -> None:
        self.initial = {k: p.detach().clone() for k, p in self.parameters(runner).items()}

        def before_step(*args: Any) -> None:
            grads = {k: p.grad for k, p in self.parameters(runner).items() if p.grad is not None}
            self.gradients.append({k: grad.clone() for k, grad in grads.items()})

        runner.optim_wrapper.optimizer.register_step_pre_hook(before_step)

    def finish(self, runner: Runner) -> None:
        self.final = {k: p.detach().clone() for k, p in self.parameters(runner).items()}
        modules = (runner.model, distill_hook_of(runner).distillers)
        named = (pair for module in modules for pair in module.named_buffers())
        self.buffers = {name: buffer.clone() for name, buffer in named}

    def content(self) -> dict[str, Any]:
        return dict(
            losses=self.losses.logged,
            gradients=self.gradients,
            initial=self.initial,
            final=self.final,
            buffers=self.buffers,
        )


def recorded(config: Config) -> tuple[dict[str, Any], Runner]:
    record = Record()
    runner = train(config, record.probe, record.losses)
    return record.content(), runner


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    if not torch.cuda.is_available():  # MMEngine's launcher asks for it unconditionally.
        torch.cuda.set_device = lambda device: None
    teachers = json.loads((folder / "teachers.json").read_text())
    teacher = teachers["detector"]
    distributed = dict(
        launcher="pytorch",
        env_cfg=dict(dist_cfg=dict(backend="gloo")),
        model_wrapper_cfg=dict(type="OnCpu"),
    )
    joined = joined_config(folder, teacher, processes=2)
    joined.merge_from_dict(distributed)
    results = dict(joined=recorded(joined)[0])
    results["statistics"], runner = recorded(with_batch_statistics(folder, teacher, **distributed))
    file = str(Path(runner.work_dir) / "epoch_1.pth")
    resumed = with_batch_statistics(folder, teacher, **distributed, load_from=file, resume=True)
    results["resumed"], _ = recorded(resumed)
    # A step of 3 iterations crosses the end of an epoch, which has 2.
    results["across"], runner = recorded(with_batch_statistics(folder, teacher, 3, **distributed))
    file = str(Path(runner.work_dir) / "epoch_1.pth")
    again = with_batch_statistics(folder, teacher, 3, **distributed, load_from=file, resume=True)
    results["across_resumed"], _ = recorded(again)
    for name in TERMS:
        config = distiller_config(folder, teachers["classifier"], name, **distributed)
        config.randomness = dict(seed=5, diff_rank_seed=True)
        config.train_dataloader.dataset.flip = True
        results[name], runner = recorded(config)
    torch.save(results, folder / f"rank{runner.rank}.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
