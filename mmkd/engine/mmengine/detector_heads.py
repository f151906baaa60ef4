"""MMDetection's heads: where their outputs are, and a forward pass that reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor, nn

from mmkd.engine.levels import HEAD_BRANCHES
from mmkd.features import EVERY_RUN
from mmkd.losses import CrossKDLoss
from mmkd.registry import MODELS

__all__ = ["BatchSamples", "check_compared", "named_outputs", "proposals_module", "run_model"]

# Names for outputs, by the modules that return them; the first that a head has.
_DENSE_CLASSES = (
    "gfl_cls",
    "atss_cls",
    "retina_cls",
    "rtm_cls",
    "multi_level_conv_cls",
    "conv_cls",
)
_OUTPUTS = {
    "head.classes": [f"bbox_head.{name}" for name in _DENSE_CLASSES],
    "head.objectness": ["bbox_head.multi_level_conv_obj"],
    # Of the box distributions, which a learned scale completes.
    "head.boxes": ["bbox_head.scales"],
    "rpn.objectness": ["rpn_head.rpn_cls"],
    "roi.classes": ["roi_head.bbox_head.fc_cls"],
}
_EXTRACTOR = "roi_head.bbox_roi_extractor"


class BatchSamples(list[Any]):
    """Data samples of a batch, with the regions that the student's head was trained on.

    Attributes:
        proposals: ``[P, 5]``: the image's position in the batch, then the corners in pixels; None
            of a detector without such a head.
    """

    proposals: Tensor | None = None


def named_outputs(model: nn.Module, path: str) -> list[str] | None:
    """The modules that ``'head.classes'``, ``'head.objectness'``, ``'head.boxes'``,
    ``'rpn.objectness'`` and ``'roi.classes'`` stand for; None for any other path.

    Raises:
        ValueError: The detector has no such output, or no such convolution of its head.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    if path not in _OUTPUTS:
        if path.startswith(HEAD_BRANCHES):
            _check_branch(model, modules, path.removesuffix(EVERY_RUN))
        return None
    found = next((name for name in _OUTPUTS[path] if name in modules), None)
    if found is None or (path == "head.boxes" and not _predicts_bins(modules)):
        raise ValueError(f"{type(model).__name__} has no {path!r}: {_ADVICE[path]}")
    module = modules[found]
    if isinstance(module, nn.ModuleList):
        return [f"{found}.{index}" for index in range(len(module))]
    return [found] if path == "roi.classes" else [f"{found}{EVERY_RUN}"]


def _check_branch(model: nn.Module, modules: dict[str, nn.Module], path: str) -> None:
    # In RTMDet's they are lists, one a level.
    if path.rpartition(".")[0] not in modules or isinstance(modules.get(path), nn.ModuleList):
        raise ValueError(
            f"{type(model).__name__} has no convolution {path!r} that serves every level: CrossKD "
            "looks through those of GFL, RetinaNet, FCOS and ATSS"
        )


_ADVICE = {
    "head.classes": "it is the class logits of one-stage detectors (RetinaNet, GFL, FCOS, ATSS, "
    "RTMDet, YOLOX); the logits of two-stage ones are 'rpn.objectness' and 'roi.classes'",
    "head.objectness": "it is the logits of an object at a cell, as YOLOX has them beside the "
    "classes",
    "head.boxes": "it is the box distributions of GFL and the heads that derive from it",
    "rpn.objectness": "it is the logits of a region proposal network, as Faster R-CNN has one",
    "roi.classes": "it is the class logits of a head on regions, as Faster R-CNN has one",
}


def _predicts_bins(modules: dict[str, nn.Module]) -> bool:
    return hasattr(modules["bbox_head"], "integral") if "bbox_head" in modules else False


def check_compared(model: nn.Module, loss: Any) -> None:
    """That :class:`mmkd.losses.CrossKDLoss` takes the boxes which the teacher's head predicts for
    what they are.

    Args:
        loss: Its config, or any other's.

    Raises:
        ValueError: They are of another kind, or scaled otherwise.
    """
    head: Any = getattr(model, "bbox_head", None)
    if not _is_cross(loss) or not hasattr(head, "bbox_coder"):
        return
    told = loss.get("compare", "classes")
    if told == "classes":
        return
    stds = list(getattr(head.bbox_coder, "stds", ()))
    kind = "deltas" if stds else "distances"
    if _predicts_bins(dict(model.named_modules())):
        kind = "bins"
    if told != kind:
        raise ValueError(
            f"the boxes of {type(head).__name__} are {kind}: expected compare={kind!r}, got "
            f"{told!r}"
        )
    given = list(loss.get("stds", [1.0] * 4))
    if kind == "deltas" and given != stds:
        raise ValueError(
            f"the teacher's coder multiplies deltas by {stds} (its target_stds): expected "
            f"stds={stds}, got {given}"
        )
    if kind == "distances" and getattr(head, "norm_on_bbox", False):
        raise ValueError(
            f"with norm_on_bbox, {type(head).__name__}'s layers do not give logarithms of "
            "distances, which compare='distances' takes: compare its classes alone"
        )


def _is_cross(loss: Any) -> bool:
    kind = loss.get("type") if isinstance(loss, Mapping) else None
    return (MODELS.get(kind) if isinstance(kind, str) else kind) is CrossKDLoss


def proposals_module(model: nn.Module) -> nn.Module | None:
    """The module that is given the regions of a two-stage detector; None of another."""
    return dict(model.named_modules()).get(_EXTRACTOR)


def run_model(model: nn.Module, images: Tensor, samples: Any = None, with_rpn: bool = True) -> Any:
    """A forward pass that meets every module whose output is compared.

    MMDetection's own of a two-stage detector makes proposals of its own, which need the images'
    data samples; here the regions are given, or one that covers each image.

    Args:
        model: Any module.
        images: ``[N, 3, H, W]``, as the model takes them.
        samples: Data samples of the batch; :class:`BatchSamples` where regions are known.
        with_rpn: Whether the region proposal network runs; its outputs lie on the way to nothing
            else.
    """
    if not isinstance(model, BaseModel):
        return model(images)
    if proposals_module(model) is None:
        return model(images, samples, mode="tensor")
    features = model.extract_feat(images)
    if with_rpn:
        model.rpn_head(features)
    proposals = getattr(samples, "proposals", None)
    if proposals is None:
        proposals = _whole_images(images)
    return model.roi_head._bbox_forward(features, proposals)


def _whole_images(images: Tensor) -> Tensor:
    count, _, height, width = images.shape
    corners = images.new_tensor([0, 0, 0, width, height]).repeat(count, 1)
    corners[:, 0] = images.new_tensor(range(count))
    return corners
