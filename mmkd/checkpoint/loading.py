"""Loading weights into a model, and what of it has to fit."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from torch import nn

from mmkd.checkpoint.reading import CheckpointWeights
from mmkd.errors import first_few

__all__ = ["LoadReport", "is_used", "load_weights"]


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
            ran: Names of the modules that run, from ``modules_that_run``.

        Raises:
            ValueError: A weight of a module that runs is missing or of another shape, or the
                file holds more weights for a part that runs (a deeper network's).
        """
        problems = [f"{key} is missing" for key in self.missing if is_used(key, ran)]
        problems += [text for text in self.mismatched if is_used(text.split(" ")[0], ran)]
        problems += [
            f"{key} has no place in the model"
            for key in self.unexpected
            if not ran.isdisjoint(accumulate(key.split(".")[:-1], "{}.{}".format))
        ]
        if problems:
            raise ValueError(
                f"{self.source.file} does not fit the teacher, {len(problems)} weights differ: "
                f"{first_few(problems, '; ')}. Give the checkpoint that belongs to the teacher's "
                "config."
            )


def is_used(key: str, ran: set[str]) -> bool:
    """Whether a weight belongs to what runs.

    Args:
        key: The weight's name.
        ran: Names of the modules that run, from ``modules_that_run``.
    """
    # The parent counts too: some modules use a child's weights without calling it.
    owner = key.rpartition(".")[0]
    parent = owner.rpartition(".")[0]
    return not owner or owner in ran or (bool(parent) and parent in ran)


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
