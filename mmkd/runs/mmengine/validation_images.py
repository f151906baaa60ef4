"""A few validation images of a config, and how accurate a network is on them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd.engine.evenly import evenly
from mmkd.engine.mmengine.annotated_boxes import boxes_of
from mmkd.engine.mmengine.spread_images import spread_batch
from mmkd.runs.accuracy import Found, average_precision
from mmkd.targets import Boxes

__all__ = ["ValidationImages", "loader_here"]

_COUNT = 16
# Of classifiers, who are right or wrong in one way.
_COUNT_OF_LABELS = 64
# At once, for large ones.
_CHUNK = 4


@dataclass(frozen=True)
class ValidationImages:
    """Some from all over a validation set.

    Args:
        inputs: ``[N, 3, H, W]``, as the student is given them.
        samples: Their data samples.
        objects: Of each image, in its own pixels; None of classifiers.
    """

    inputs: Tensor
    samples: Sequence[Any]
    objects: Sequence[Boxes] | None

    @classmethod
    def of(
        cls, loader: Mapping[str, Any] | None, preprocessor: nn.Module
    ) -> ValidationImages | None:
        """Reads them; None where there is none that could be scored.

        Args:
            loader: Config of the validation's.
            preprocessor: Of the student.
        """
        if loader is None:
            return None
        try:
            built = loader_here(loader)
            batch = spread_batch(built, preprocessor, _COUNT)
            samples = batch["data_samples"]
            if all("gt_label" in sample for sample in samples):
                batch = spread_batch(built, preprocessor, _COUNT_OF_LABELS)
                return cls(batch["inputs"], batch["data_samples"], None)
            indices = evenly(_COUNT, len(built.dataset))
            infos = [built.dataset.get_data_info(index) for index in indices]
            return cls(batch["inputs"], samples, [boxes_of(info["instances"]) for info in infos])
        except Exception:  # Whatever is wrong with it, the training's validation tells.
            return None

    @torch.no_grad()
    def accuracy_of(self, network: Any, images: Tensor) -> float | None:
        """COCO's mAP of a detector, top-1 of a classifier, in percent; None where its predictions
        are of another kind.

        Args:
            network: In evaluation mode.
            images: As it is given them.
        """
        found: list[Any] = []
        try:
            for start in range(0, len(images), _CHUNK):
                chunk = slice(start, start + _CHUNK)
                own = copy.deepcopy(list(self.samples[chunk]))
                found += network(images[chunk], own, mode="predict")
            if self.objects is None:
                right = [bool((each.pred_label == each.gt_label).all()) for each in found]
                return 100 * sum(right) / len(right)
            return average_precision(self.objects, [_found(each.pred_instances) for each in found])
        except Exception:  # Networks without predictions, and of other tasks, differ.
            return None


def loader_here(settings: Mapping[str, Any]) -> Any:
    """A data loader that reads in this process, and ahead of nobody.

    Args:
        settings: Config of a loader.
    """
    own = {k: v for k, v in settings.items() if k not in ("prefetch_factor", "timeout")}
    own |= dict(num_workers=0, persistent_workers=False)
    return Runner.build_dataloader(copy.deepcopy(own), seed=0)


def _found(instances: Any) -> Found:
    return Found(instances.bboxes.cpu(), instances.scores.cpu(), instances.labels.cpu())
