"""Training more parameters with the optimizer and schedules that a Runner already has."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.runner import Runner
from torch import nn

from mmkd.errors import InputError

__all__ = ["add_distillers", "put_back_distillers", "take_out_distillers"]

# What a schedule keeps for each group of the optimizer.
_BY_GROUP = ("base_values", "_last_value")


def add_distillers(runner: Runner, distillers: Iterable[nn.Module]) -> int:
    """Adds parameters to the Runner's optimizer as if they had been there from the start.

    They get the optimizer's learning rate, weight decay and ``paramwise_cfg`` under names such as
    ``distill.projector.linear.weight``, the scaling of ``auto_scale_lr``, and every parameter
    schedule.

    Args:
        runner: A Runner at ``before_run``: optimizer and schedulers built, nothing stepped.
        distillers: Modules whose parameters are to be trained.

    Returns:
        How many groups the optimizer has more.

    Raises:
        ValueError: The Runner was given built schedulers instead of their configs.
    """
    groups = [group for module in distillers for group in _param_groups(runner, module)]
    if not groups:
        return 0
    optimizer = runner.optim_wrapper.optimizer
    scale = _lr_scale(runner)
    has_schedulers = bool(runner.param_schedulers)
    schedulers = runner.cfg.get("param_scheduler")
    if has_schedulers and schedulers is None:
        raise InputError.at(
            "DistillHook",
            "param_scheduler is missing from the Runner's cfg, so the projectors "
            "cannot join its schedules: make the Runner with Runner.from_cfg(cfg)",
        )
    # A scheduler copies every group's value when it is built, and has already set the first
    # one: the groups go back to where they were, and the schedulers are built again.
    for scheduler in reversed(runner.param_schedulers or ()):
        _undo(scheduler)
    for group in groups:
        optimizer.add_param_group({**group, "lr": group["lr"] * scale})
    if has_schedulers:
        runner.param_schedulers = runner.build_param_scheduler(copy.deepcopy(schedulers))
    return len(groups)


def take_out_distillers(checkpoint: dict[str, Any], added: int) -> dict[str, Any]:
    """Leaves in a checkpoint what the optimizer and its schedules hold without distillation, so
    that a config without the hook goes on from it.

    Args:
        checkpoint: About to be saved; nothing that it shares with the run is changed.
        added: What :func:`add_distillers` returned.

    Returns:
        What was taken out.
    """
    if not added or "optimizer" not in checkpoint:
        return {}
    optimizer = checkpoint["optimizer"]
    groups, state = optimizer["param_groups"], optimizer["state"]
    own = {index for group in groups[-added:] for index in group["params"]}
    checkpoint["optimizer"] = {
        **optimizer,
        "param_groups": groups[:-added],
        "state": {index: each for index, each in state.items() if index not in own},
    }
    taken = dict(
        param_groups=groups[-added:],
        state={index: each for index, each in state.items() if index in own},
    )
    if "param_schedulers" in checkpoint:
        taken["param_schedulers"] = schedulers = checkpoint["param_schedulers"]
        places = slice(len(groups) - added, len(groups))
        checkpoint["param_schedulers"] = [_without(each, places) for each in schedulers]
    return taken


def put_back_distillers(checkpoint: dict[str, Any], taken: Mapping[str, Any]) -> None:
    """Undoes :func:`take_out_distillers` in a checkpoint that was loaded."""
    if not taken or "optimizer" not in checkpoint:
        return
    optimizer = checkpoint["optimizer"]
    optimizer["param_groups"] = [*optimizer["param_groups"], *taken["param_groups"]]
    optimizer["state"] = {**optimizer["state"], **taken["state"]}
    if "param_schedulers" in taken:
        checkpoint["param_schedulers"] = taken["param_schedulers"]


def _without(scheduler: Mapping[str, Any], places: slice) -> dict[str, Any]:
    left = dict(scheduler)
    for key in _BY_GROUP:
        if isinstance(left.get(key), list):
            left[key] = [*left[key][: places.start], *left[key][places.stop :]]
    return left


def _undo(scheduler: Any) -> None:
    """Puts back what every group held before the scheduler was built.

    The groups include the wrapper's own, of settings without ``paramwise_cfg``.
    """
    name = scheduler.param_name
    # Schedulers that wait for a metric have set nothing yet, and keep no base values.
    base_values = getattr(scheduler, "base_values", ())
    for group, value in zip(scheduler.optimizer.param_groups, base_values, strict=False):
        group.pop(f"initial_{name}", None)
        group[name] = value
        if getattr(scheduler, "use_betas", False):
            group["betas"] = (value, *group["betas"][1:])


def _param_groups(runner: Runner, module: nn.Module) -> list[dict[str, Any]]:
    if not any(True for _ in module.parameters()):
        return []
    config = runner.cfg.get("optim_wrapper") or {}
    optimizer = config.get("optimizer") if hasattr(config, "get") else None
    if not isinstance(optimizer, dict):
        defaults = runner.optim_wrapper.optimizer.defaults
        return [{**defaults, "params": list(module.parameters())}]
    # Other constructors (layer-wise decay, for instance) know only their own backbones.
    constructor = config.get("constructor", "DefaultOptimWrapperConstructor")
    name = constructor if isinstance(constructor, str) else constructor.__name__
    is_default = name.endswith("DefaultOptimWrapperConstructor")
    build = DefaultOptimWrapperConstructor(
        optim_wrapper_cfg=dict(type="OptimWrapper", optimizer=copy.deepcopy(optimizer)),
        paramwise_cfg=copy.deepcopy(config.get("paramwise_cfg")) if is_default else None,
    )
    # The term's own name stays out: a custom key 'backbone' is not meant for a projector.
    named = nn.ModuleDict({"distill": module})
    return [dict(group) for group in build(named).optimizer.param_groups]


def _lr_scale(runner: Runner) -> float:
    auto = runner.auto_scale_lr
    if not auto or not auto.get("enable", False):
        return 1.0
    batch_size = runner.world_size * runner.cfg.train_dataloader.batch_size
    return batch_size / auto["base_batch_size"]
