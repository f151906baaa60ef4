"""The embedded detection set: handwritten digits drawn onto textured canvases.

The digits are the 1,797 real 8 x 8 images that ship inside scikit-learn (`load_digits`, the test
part of UCI's "Optical Recognition of Handwritten Digits"), so nothing is downloaded. Four fifths of
every class are drawn in training images only, the rest in validation images only.

Letters in shapes: S is the side of an image, h and w the sides of a drawn digit, all in pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from mmkd.data.set_folder import SetFolder
from mmkd.extras import extra

Split = Literal["train", "val"]
Layout = Literal["coco", "yolo", "both"]

SPLITS: tuple[Split, ...] = get_args(Split)
CLASSES = tuple("0123456789")
METAINFO = {"classes": CLASSES}

_RECIPE = 1  # raised whenever the same settings would draw other pixels
_TRAIN_SHARE = 0.8
_MAX_ANGLE = 15.0  # degrees
_FAINTEST = 0.2  # opacities below this are cut to zero, so that a box ends where the eye sees it
_PLACEMENT_TRIES = 100
_LARGEST_IMAGE = 4096  # pixels a side: drawing takes some hundred bytes a pixel


@dataclass(frozen=True)
class Digit:
    """One drawn digit.

    Attributes:
        label: index into `CLASSES`.
        source: index into `load_digits`.
        left, top: pixel of the image where `opacity` begins.
        color: BGR, 0 to 255.
        opacity: `[h, w]` in [0, 1]; every border row and column holds a visible (non-zero) pixel.
    """

    label: int
    source: int
    left: int
    top: int
    color: tuple[float, float, float]
    opacity: NDArray[np.float32]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """COCO's `(left, top, width, height)` in pixels, tight around the visible pixels."""
        height, width = self.opacity.shape
        return self.left, self.top, width, height


@dataclass(frozen=True)
class Scene:
    """A background `[S, S, 3]` (BGR, uint8) and the digits that lie on it, side by side."""

    background: NDArray[np.uint8]
    digits: tuple[Digit, ...]

    def image(self) -> NDArray[np.uint8]:
        """The painted image, `[S, S, 3]` BGR."""
        canvas = self.background.astype(np.float32)
        for digit in self.digits:
            left, top, width, height = digit.box
            patch = canvas[top : top + height, left : left + width]
            patch += digit.opacity[..., None] * (np.array(digit.color, np.float32) - patch)
        return np.round(canvas).astype(np.uint8)


@dataclass(frozen=True)
class SceneSampler:
    """Draws scenes; a scene depends on the settings, the split and the index, nothing else.

    Attributes:
        image_size: side of the square images in pixels.
        min_digits, max_digits: bounds of the number of digits in an image, both included.
        min_size, max_size: bounds of a digit's height before rotation, in pixels, both included.
        seed: non-negative.

    Raises:
        TypeError: a setting is not an integer.
        ValueError: a setting is out of range, or the digits cannot fit into the image.
    """

    image_size: int
    min_digits: int
    max_digits: int
    min_size: int
    max_size: int
    seed: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            _check_integer(name, value)
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not 1 <= self.min_digits <= self.max_digits:
            raise ValueError(
                "need 1 <= min_digits <= max_digits, "
                f"got min_digits={self.min_digits}, max_digits={self.max_digits}"
            )
        if not 8 <= self.min_size <= self.max_size:
            raise ValueError(
                "need 8 <= min_size <= max_size (the sources are 8 x 8 pixels), "
                f"got min_size={self.min_size}, max_size={self.max_size}"
            )
        if self.image_size > _LARGEST_IMAGE:
            raise ValueError(
                f"image_size must be at most {_LARGEST_IMAGE} pixels, got {self.image_size}"
            )
        if _patch_size(self.max_size) > self.image_size:
            raise ValueError(
                f"a digit of max_size={self.max_size} pixels may need {_patch_size(self.max_size)} "
                f"pixels when rotated, got image_size={self.image_size}; enlarge the image or "
                "lower max_size"
            )

    def scene(self, split: Split, index: int) -> Scene:
        """The scene `index` (from 0) of a split."""
        rng = np.random.default_rng((self.seed, SPLITS.index(split), index))
        background = _background(rng, self.image_size)
        digits: list[Digit] = []
        for _ in range(rng.integers(self.min_digits, self.max_digits + 1)):
            digit = self._place(rng, split, background, digits)
            if digit is not None:
                digits.append(digit)
        if len(digits) < self.min_digits:
            raise ValueError(
                f"min_digits={self.min_digits} digits of {self.min_size} to {self.max_size} pixels "
                f"do not fit side by side into image_size={self.image_size}; enlarge the image, "
                "or lower min_digits or the sizes"
            )
        return Scene(background, tuple(digits))

    def _place(
        self,
        rng: np.random.Generator,
        split: Split,
        background: NDArray[np.uint8],
        placed: list[Digit],
    ) -> Digit | None:
        """A digit whose box touches none of the placed ones, or None where no room was found."""
        label = int(rng.integers(len(CLASSES)))
        source = int(rng.choice(_sources(self.seed)[split][label]))
        for _ in range(_PLACEMENT_TRIES):
            # Log-uniform: as many digits between 12 and 24 pixels as between 24 and 48.
            size = math.exp(rng.uniform(math.log(self.min_size), math.log(self.max_size)))
            opacity = _opacity(source, size, rng.uniform(-_MAX_ANGLE, _MAX_ANGLE))
            height, width = opacity.shape
            left = int(rng.integers(self.image_size - width + 1))
            top = int(rng.integers(self.image_size - height + 1))
            if not any(_touch((left, top, width, height), other.box) for other in placed):
                ground = float(background[top : top + height, left : left + width].mean())
                return Digit(label, source, left, top, _lighter(rng, ground), opacity)
        return None


def make_digits(
    out: str | Path,
    *,
    num_train: int = 1000,
    num_val: int = 200,
    image_size: int = 96,
    min_digits: int = 3,
    max_digits: int = 5,
    min_size: int = 18,
    max_size: int = 34,
    seed: int = 0,
    layout: Layout = "coco",
) -> Path:
    """Write the digits detection set into the folder `out` and return that folder.

    - `coco`: `train/*.png`, `val/*.png`, `annotations/train.json`, `annotations/val.json`.
      Category ids run from 1 (digit 0) to 10 (digit 9).
    - `yolo`: `images/train/*.png`, `labels/train/*.txt`, the same for `val`, and `data.yaml`.
    - `both`: the two side by side, with the same images and boxes.

    The same settings give the same bytes, a larger set begins with the images of a smaller one, and
    the digits of `train` and `val` come from disjoint sets of sources. The folder appears only once
    it is complete. A folder that already holds a set of the same settings is kept as it is.

    Args:
        out: the folder to write.
        num_train, num_val: number of images of each split, at least 1.
        image_size: side of the square images in pixels.
        min_digits, max_digits: bounds of the number of digits in an image, both included.
        min_size, max_size: bounds of a digit's height before rotation (up to 15 degrees), in
            pixels, both included.
        seed: seeds what is drawn; numpy's global random state is left alone.
        layout: `coco`, `yolo` or `both`.

    Raises:
        TypeError: a number is not an integer.
        ValueError: a setting is out of range, or the digits cannot fit into the image.
        FileExistsError: `out` holds something other than this very set.
        InputError: `out` is a file, or nothing can be written there.
    """
    counts: dict[Split, int] = {"train": num_train, "val": num_val}
    for split, count in counts.items():
        _check_integer(f"num_{split}", count)
        if count < 1:
            raise ValueError(f"num_{split} must be at least 1, got {count}")
    if layout not in get_args(Layout):
        raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}")
    sampler = SceneSampler(image_size, min_digits, max_digits, min_size, max_size, seed)

    out = Path(out)
    settings = {
        "recipe": _RECIPE,
        "num_train": num_train,
        "num_val": num_val,
        **asdict(sampler),
        "layout": layout,
    }
    made = SetFolder(out, "digits.json", settings, "a digits set of other settings")
    if not made.is_made():
        with made.making() as folder:
            for split, count in counts.items():
                _write_split(folder, sampler, split, count, layout)
            if layout != "coco":
                (folder / "data.yaml").write_text(_data_yaml(), encoding="utf-8")
    return out


def _check_integer(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")


# Drawing


@cache
def _load_sources() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    # Imported here because it takes a second, which only those who draw should wait.
    with extra("demo", "drawing digits"):
        from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


@cache
def _sources(seed: int) -> dict[Split, list[NDArray[np.int64]]]:
    """For each split and class, the indices of the sources that may be drawn there."""
    rng = np.random.default_rng(seed)
    labels = _load_sources()[1]
    sources: dict[Split, list[NDArray[np.int64]]] = {"train": [], "val": []}
    for label in range(len(CLASSES)):
        members = rng.permutation(np.flatnonzero(labels == label))
        cut = round(_TRAIN_SHARE * len(members))
        sources["train"].append(members[:cut])
        sources["val"].append(members[cut:])
    return sources


def _patch_size(size: float) -> int:
    """Side of the square that surely holds a rotated digit and the blur around it."""
    turn = math.radians(_MAX_ANGLE)
    return math.ceil(9 / 8 * size * (math.cos(turn) + math.sin(turn)))


def _opacity(source: int, size: float, angle: float) -> NDArray[np.float32]:
    """The source enlarged to `size` pixels, rotated, and cut tight: `[h, w]` in [0, 1]."""
    image = _load_sources()[0][source]
    side = _patch_size(size)
    centring = np.array([0, 0, (side - 1) / 2 - 3.5])
    affine = cv2.getRotationMatrix2D((3.5, 3.5), angle, size / 8) + centring
    drawn = cv2.warpAffine(image, affine, (side, side), flags=cv2.INTER_CUBIC)
    patch = np.where(drawn < _FAINTEST, 0, np.minimum(drawn, 1)).astype(np.float32)
    rows = np.flatnonzero(patch.any(axis=1))
    columns = np.flatnonzero(patch.any(axis=0))
    tight: NDArray[np.float32] = patch[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return tight


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    """Whether two `(left, top, width, height)` boxes share a pixel or an edge."""
    return (
        a[0] <= b[0] + b[2] and b[0] <= a[0] + a[2] and a[1] <= b[1] + b[3] and b[1] <= a[1] + a[3]
    )


def _lighter(rng: np.random.Generator, ground: float) -> tuple[float, float, float]:
    """A colour that is clearly lighter than the mean of the ground it lies on."""
    level = ground + rng.uniform(60, 120)
    blue, green, red = np.clip(level + rng.uniform(-30, 30, 3), 0, 255).tolist()
    return blue, green, red


def _background(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A textured canvas `[S, S, 3]`: colour gradient, smooth noise, stripes, stray strokes."""
    down, right = np.mgrid[:size, :size].astype(np.float32) / size
    base = rng.uniform(30, 150, 3)
    canvas = base + _wave_axis(rng, down, right)[..., None] * rng.uniform(-50, 50, 3)
    for cells in (int(rng.integers(2, 5)), int(rng.integers(8, 17))):
        noise = rng.normal(0, rng.uniform(4, 12), (cells, cells, 3))
        canvas = canvas + cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:
        waves = np.sin(2 * np.pi * rng.uniform(3, 12) * _wave_axis(rng, down, right))
        canvas = canvas + rng.uniform(5, 20) * waves[..., None]
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(0, 5)):
        _stroke(rng, image, np.clip(base + rng.uniform(-60, 60, 3), 0, 255).tolist())
    return image


def _wave_axis(
    rng: np.random.Generator, down: NDArray[np.float32], right: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The coordinate `[S, S]` along a random direction, about 1 from side to side."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.asarray(math.cos(angle) * right + math.sin(angle) * down, dtype=np.float32)


def _stroke(rng: np.random.Generator, image: NDArray[np.uint8], color: list[float]) -> None:
    """Draw an arc of a random ellipse: clutter that resembles a part of a digit."""
    size = image.shape[0]
    center = rng.integers(0, size, 2).tolist()
    axes = rng.integers(3, max(4, size // 4), 2).tolist()
    start, span, turn = rng.uniform(0, 360), rng.uniform(40, 200), rng.uniform(0, 180)
    thickness = int(rng.integers(1, 3))
    cv2.ellipse(image, center, axes, turn, start, start + span, color, thickness, cv2.LINE_AA)


# Writing


def _write_split(
    folder: Path, sampler: SceneSampler, split: Split, count: int, layout: Layout
) -> None:
    size = sampler.image_size
    coco: dict[str, list[dict[str, object]]] = {"images": [], "annotations": []}
    image_folders = [folder / split] if layout != "yolo" else []
    image_folders += [folder / "images" / split] if layout != "coco" else []
    labels = folder / "labels" / split
    for made in (*image_folders, *([labels] if layout != "coco" else [])):
        made.mkdir(parents=True)
    for index in range(count):
        scene = sampler.scene(split, index)
        name = f"{index:06d}"
        encoded = cv2.imencode(".png", scene.image())[1].tobytes()
        for image_folder in image_folders:
            (image_folder / f"{name}.png").write_bytes(encoded)
        if layout != "coco":
            lines = "".join(_yolo_lines(scene, size))
            (labels / f"{name}.txt").write_text(lines, encoding="utf-8")
        coco["images"].append(
            {"id": index + 1, "file_name": f"{name}.png", "width": size, "height": size}
        )
        for digit in scene.digits:
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": index + 1,
                    "category_id": digit.label + 1,
                    "bbox": list(digit.box),
                    "area": digit.box[2] * digit.box[3],
                    "iscrowd": 0,
                    "source": digit.source,
                }
            )
    if layout != "yolo":
        info = {"description": "mmkd digits", "version": str(_RECIPE), "split": split}
        categories = [
            {"id": label + 1, "name": name, "supercategory": "digit"}
            for label, name in enumerate(CLASSES)
        ]
        (folder / "annotations").mkdir(exist_ok=True)
        annotations = {"info": info, "licenses": [], **coco, "categories": categories}
        _write_json(folder / "annotations" / f"{split}.json", annotations)


def _yolo_lines(scene: Scene, size: int) -> Iterator[str]:
    """`class centre_x centre_y width height`, in shares of the image's side."""
    for digit in scene.digits:
        left, top, width, height = digit.box
        shares = (left + width / 2, top + height / 2, width, height)
        yield (" ".join([str(digit.label), *(f"{share / size:.8f}" for share in shares)]) + "\n")


def _data_yaml() -> str:
    # No `path` entry: the images are then looked for next to this file, wherever it is moved.
    names = "".join(f'  {label}: "{name}"\n' for label, name in enumerate(CLASSES))
    return f"train: images/train\nval: images/val\nnames:\n{names}"


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
