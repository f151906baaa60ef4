"""MMDetection's heads: where their outputs are, and a forward pass that reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor, nn

from mmkd.engine.levels import HEAD_BRANCHES
from mmkd.features import EVERY_RUN
from mmkd.losses import CrossKDLoss

__all__ = ["BatchSamples", "check_crossed_boxes", "named_outputs", "proposals_module", "run_model"]

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
    if found is None or (path == "head.boxes" and not _predicts_bins(modules.get("bbox_head"))):
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


def _predicts_bins(head: nn.Module | None) -> bool:
    return hasattr(head, "integral")


# What a coder takes, in CrossKD's words.
_BOXES = {"DeltaXYWHBBoxCoder": "deltas", "DistancePointBBoxCoder": "distances"}


def check_crossed_boxes(model: nn.Module, loss: Any) -> None:
    """That CrossKD takes the boxes which the teacher's head predicts for what they are.

    Args:
        loss: The config of a :class:`mmkd.losses.CrossKDLoss`; of any other, nothing is asked.

    Raises:
        ValueError: They are of another kind or scaled otherwise, or of none that CrossKD knows.
    """
    head: Any = getattr(model, "bbox_head", None)
    is_cross = isinstance(loss, Mapping) and loss.get("type") in ("mmkd.CrossKDLoss", CrossKDLoss)
    if not is_cross or loss.get("compare", "classes") == "classes":
        return
    if not hasattr(head, "bbox_coder"):
        return
    told, name = loss["compare"], type(head).__name__
    kind = "bins" if _predicts_bins(head) else _BOXES.get(type(head.bbox_coder).__name__)
    if kind is None or (kind == "distances" and not _gives_logarithms(head)):
        raise ValueError(
            "CrossKD compares boxes of GFL, RetinaNet, ATSS, and FCOS without norm_on_bbox, whose "
            f"layers give the logarithms of distances; of {name} compare the classes alone"
        )
    if told != kind:
        raise ValueError(f"the boxes of {name} are {kind}: expected compare={kind!r}, got {told!r}")
    given = list(loss.get("stds", [1.0] * 4))
    if kind == "deltas" and given != list(head.bbox_coder.stds):
        stds = list(head.bbox_coder.stds)
        raise ValueError(
            f"the teacher's coder multiplies deltas by {stds} (its target_stds): expected "
            f"stds={stds}, got {given}"
        )


def _gives_logarithms(head: Any) -> bool:
    """Of distances: others that derive from FCOS clamp what their layers give."""
    from mmdet.models import FCOSHead

    own = getattr(type(head), "forward_single", None)
    return own is FCOSHead.forward_single and not head.norm_on_bbox


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
