"""The frozen teacher: strictly loaded, and run no further than needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmkd.checkpoint import CheckpointWeights
from mmkd.features import FeatureTaps

__all__ = ["LoadReport", "Teacher", "load_weights", "modules_that_run"]


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint did and did not fill of a model."""

    source: CheckpointWeights
    loaded: int
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unexpected: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.source.file} (sha256 {self.source.sha256}): {self.loaded} tensors loaded, "
            f"{len(self.missing)} missing, {len(self.mismatched)} of another shape, "
            f"{len(self.unexpected)} unexpected"
        )

    def require(self, ran: set[str]) -> None:
        """Raises unless everything that runs was loaded.

        Args:
            ran: Names of the modules that run, from :func:`modules_that_run`.

        Raises:
            ValueError: A weight of a module that runs is missing or of another shape, or the
                file holds more weights for a part that runs (a deeper network's).
        """

        def runs(key: str) -> bool:
            # The parent counts too: some modules use a child's weights without calling it.
            owner = key.rpartition(".")[0]
            parent = owner.rpartition(".")[0]
            return not owner or owner in ran or (bool(parent) and parent in ran)

        problems = [f"{key} is missing" for key in self.missing if runs(key)]
        problems += [text for text in self.mismatched if runs(text.split(" ")[0])]
        problems += [
            f"{key} has no place in the model"
            for key in self.unexpected
            if key.partition(".")[0] in ran
        ]
        if problems:
            shown = "; ".join(problems[:5]) + (
                f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
            )
            raise ValueError(
                f"{self.source.file} does not fit the teacher, {len(problems)} weights differ: "
                f"{shown}. Give the checkpoint that belongs to the teacher's config."
            )


def load_weights(model: nn.Module, source: CheckpointWeights) -> LoadReport:
    """Copies every weight that fits into ``model`` and reports the rest.

    Whether the rest matters depends on what will run: see :meth:`LoadReport.require`.
    """
    own = model.state_dict()
    fitting, mismatched = {}, []
    for key, value in source.weights.items():
        if key in own and own[key].shape == value.shape:
            fitting[key] = value
        elif key in own:
            mismatched.append(
                f"{key} is {tuple(value.shape)} in the file, {tuple(own[key].shape)} in the model"
            )
    model.load_state_dict(fitting, strict=False)
    return LoadReport(
        source=source,
        loaded=len(fitting),
        missing=tuple(
            k for k in own if k not in source.weights and not k.endswith("num_batches_tracked")
        ),
        mismatched=tuple(mismatched),
        unexpected=tuple(k for k in source.weights if k not in own),
    )


@contextmanager
def modules_that_run(model: nn.Module) -> Any:
    """Yields a set that fills with the names of the modules entered while it lasts."""
    ran: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda m, args, name=name: ran.add(name))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


class Teacher:
    """A frozen model whose tapped features are computed without gradients.

    The forward pass ends at the deepest tap: what comes after it never runs.

    Args:
        model: Any module. It is put into eval mode and its parameters out of training's reach.
        paths: Names of the modules to tap.
        forward: How to run ``model`` on a batch; called as ``forward(model, inputs, context)``.

    Raises:
        ValueError: A path names no module.
    """

    def __init__(
        self,
        model: nn.Module,
        paths: Iterable[str],
        forward: Callable[[nn.Module, Tensor, Any], Any] | None = None,
    ) -> None:
        # Not chained: MMDetection's backbones return None from train() and eval().
        model.eval()
        model.requires_grad_(False)
        self.model = model
        self._forward = forward or (lambda model, inputs, context: model(inputs))
        self._taps = FeatureTaps(model, paths, stop_when_complete=True)

    @torch.no_grad()
    def features(self, inputs: Tensor, context: Any = None) -> dict[str, Any]:
        """The output of every tapped module for a batch.

        Args:
            inputs: Images ``[N, 3, H, W]``, preprocessed as the teacher expects.
            context: Passed on to ``forward`` (data samples, for instance).

        Raises:
            RuntimeError: A tapped module did not run, or ran more than once.
        """
        with self._taps.recording():
            self._forward(self.model, inputs, context)
        return self._taps.take()
