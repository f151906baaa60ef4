"""The boxes that Ultralytics' own validation finds on the images that a COCO file lists."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from ultralytics import YOLO
from ultralytics.data import YOLODataset, build_dataloader
from ultralytics.data.utils import exif_size
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils import NUM_THREADS
from ultralytics.utils.torch_utils import select_device

from mmkd.errors import InputError

__all__ = ["validated_boxes"]


def validated_boxes(
    model: YOLO, objects: Mapping[Path, int], image_size: int
) -> Iterator[tuple[Path, Tensor]]:
    """Yields each image and its boxes as ``model.val(imgsz=image_size)`` finds them.

    Not as ``model.predict`` does: in validation images of similar shape share a rectangle with a
    padded border, and a box may have several classes.

    Args:
        model: A detector. It is left as it is.
        objects: The images, and how many objects are marked in each.
        image_size: To which the longer side is scaled.

    Yields:
        Image and boxes ``[M, 6]``: x1, y1, x2, y2 in pixels of the image, score, class.

    Raises:
        InputError: An image that cannot be read.
    """
    with TemporaryDirectory() as folder, torch.inference_mode():
        settings = dict(imgsz=image_size, rect=True, single_cls=model.overrides.get("single_cls"))
        given = {key: value for key, value in settings.items() if value is not None}
        validator = DetectionValidator(save_dir=Path(folder), args=given)
        validator.training = False
        backend = AutoBackend(
            copy.deepcopy(model.model),
            device=select_device(verbose=False),
            verbose=False,
            end2end=validator.args.nms is False,
        )
        backend.eval()
        validator.device, validator.data = backend.device, {}
        images = _Images(
            objects,
            data=dict(names=model.names, channels=model.model.yaml.get("channels", 3)),
            imgsz=validator.args.imgsz,
            batch_size=validator.args.batch,
            stride=backend.stride,
            hyp=validator.args,
        )
        validator.dataloader = build_dataloader(
            images, validator.args.batch, workers=0, shuffle=False, device=backend.device
        )
        validator.init_metrics(backend)
        for batch in validator.dataloader:
            batch = validator.preprocess(batch)
            found = validator.postprocess(backend(batch["img"]))
            for index, boxes in enumerate(found):
                yield Path(batch["im_file"][index]), _in_the_image(validator, boxes, batch, index)


def _in_the_image(
    validator: DetectionValidator, boxes: dict[str, Tensor], batch: dict[str, Any], index: int
) -> Tensor:
    image = dict(
        imgsz=batch["img"].shape[2:],
        ori_shape=batch["ori_shape"][index],
        ratio_pad=batch["ratio_pad"][index],
    )
    scaled = validator.scale_preds(boxes, image)
    return torch.cat([scaled["bboxes"], scaled["conf"][:, None], scaled["cls"][:, None]], dim=1)


class _Images(YOLODataset):
    """Images as a validation prepares them, without the scan that comes before one: it writes a
    cache beside the labels, and mends damaged images in place."""

    def __init__(self, objects: Mapping[Path, int], **settings: Any) -> None:
        self._objects = objects
        super().__init__(img_path="", augment=False, rect=True, **settings)

    def get_img_files(self, img_path: Any) -> list[str]:
        """In the order of their paths, in which a validation reads them."""
        return sorted(map(str, self._objects))

    def get_labels(self) -> list[dict[str, Any]]:
        """How many objects there are, by which a validation limits the boxes of an image; their
        boxes and classes do not matter here."""
        with ThreadPool(NUM_THREADS) as pool:
            shapes = pool.map(_shape, self.im_files)
        counts = [self._objects[Path(file)] for file in self.im_files]
        return [
            dict(
                im_file=file,
                shape=shape,
                cls=np.zeros((count, 1), dtype=np.float32),
                bboxes=np.zeros((count, 4), dtype=np.float32),
                segments=[],
                normalized=True,
                bbox_format="xywh",
            )
            for file, shape, count in zip(self.im_files, shapes, counts, strict=True)
        ]


def _shape(file: str) -> tuple[int, int]:
    """Height and width of an image that can be read to its end."""
    try:
        with Image.open(file) as image:
            width, height = exif_size(image)
            image.load()
    except Exception as error:  # The formats' readers raise anything.
        raise InputError(
            f"{file} cannot be read as an image: replace it, or remove it from the annotations"
        ) from error
    return height, width
