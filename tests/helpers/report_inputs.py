"""Small work dirs, photos and detections, as trainers leave them, for the report's tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from helpers import scenes

__all__ = [
    "CLASSES",
    "NUM_IMAGES",
    "Inputs",
    "detections",
    "make_inputs",
    "mmengine_work_dir",
    "scene_work_dirs",
    "ultralytics_work_dir",
]

NUM_IMAGES = 8
# The second would end the script that holds the charts, and is markup for whoever does not escape.
CLASSES = ["10", "</script><b>cross", "bar & <i>"]
WIDTH, HEIGHT = 120, 90
FIRST, SECOND = [10, 10, 30, 30], [60, 30, 45, 40]
# Of the plain student: what it does to the first object of an image.
MISTAKES = {
    0: "missed",
    1: "classification",
    2: "localisation",
    3: "duplicate",
    4: "background",
    5: "both",
}


@dataclass(frozen=True)
class Inputs:
    """What a report is made from."""

    annotations: Path
    images: Path
    teacher: Path
    plain: list[Path]
    distilled: Path

    @property
    def work_dirs(self) -> list[Path]:
        """The teacher first, which the page shows last."""
        return [self.teacher, *self.plain, self.distilled]


def _category(image: int) -> int:
    return 1 + image % 3


def _annotations() -> dict:
    objects = []
    for image in range(NUM_IMAGES):
        objects.append(dict(image_id=image, category_id=_category(image), bbox=FIRST))
        if image < 2 or image > 5:
            objects.append(dict(image_id=image, category_id=3, bbox=SECOND))
    for index, each in enumerate(objects, start=1):
        each.update(id=index, area=each["bbox"][2] * each["bbox"][3], iscrowd=0)
    return dict(
        images=[
            dict(id=i, file_name=f"photo_{i}.png", width=WIDTH, height=HEIGHT)
            for i in range(NUM_IMAGES)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)],
        annotations=objects,
    )


def detections(mistakes: Mapping[int, str]) -> list[dict]:
    """All objects, found well except for one mistake on some images."""
    found = []
    for each in _annotations()["annotations"]:
        image, category, box = each["image_id"], each["category_id"], each["bbox"]
        right = dict(image_id=image, category_id=category, bbox=box, score=0.9 - 0.01 * image)
        mistake = mistakes.get(image) if box == FIRST else None
        shifted = dict(right, bbox=[22, 10, 30, 30])
        other = 1 + category % 3
        found += {
            None: [right],
            "missed": [],
            "classification": [dict(right, category_id=other)],
            "localisation": [shifted],
            "duplicate": [right, dict(right, bbox=[11, 10, 30, 30], score=0.5)],
            "background": [right, dict(right, bbox=[80, 60, 20, 20], score=0.6)],
            "both": [dict(shifted, category_id=other)],
        }[mistake]
    return found


def _write_photos(folder: Path) -> None:
    folder.mkdir(parents=True)
    for image in range(NUM_IMAGES):
        photo = Image.new("RGB", (WIDTH, HEIGHT), (40 + 20 * image, 90, 140))
        draw = ImageDraw.Draw(photo)
        for x, y, width, height in (FIRST, SECOND):
            draw.rectangle((x, y, x + width, y + height), fill=(230, 210, 90))
        photo.save(folder / f"photo_{image}.png")


def _scalars(is_distilled: bool, score: str, ends_at: float) -> str:
    lines: list[dict] = []
    for iteration in range(1, 61):
        loss = 2 / iteration
        line = dict(lr=0.01, loss_cls=loss, loss_bbox=loss / 2, loss=1.5 * loss, time=0.1)
        if is_distilled:
            line |= dict(loss_distill_neck=3 * loss, loss=4.5 * loss, distill_ratio=2.0)
            line |= dict(distill_weight_neck=0.5, distill_share_neck=0.25)
            line |= {"dynamics/gradient_cosine": 1 / iteration}
        lines.append(line | dict(epoch=1 + iteration // 20, iter=iteration, step=iteration))
        if iteration % 20 == 0:
            lines.append({score: ends_at * iteration / 60, "step": iteration // 20})
    return "".join(json.dumps(line) + "\n" for line in lines)


def mmengine_work_dir(
    folder: Path,
    *,
    config: str = "",
    is_distilled: bool = False,
    score: str = "coco/bbox_mAP",
    ends_at: float = 0.4,
    found: Sequence[dict] | None = None,
    parameters: int | None = None,
) -> Path:
    """A work dir of MMEngine's Runner.

    Args:
        folder: Whose name is the run's, and ends in its seed.
        config: Dumped settings besides seed and work dir.
        is_distilled: Log what distillation adds.
        score: Validation metric.
        ends_at: Its last value.
        found: Detections that the run leaves.
        parameters: Noted by mmkd's runner where given.
    """
    name, _, seed = folder.name.rpartition("_seed")
    logs = folder / "20250102_030405" / "vis_data"
    logs.mkdir(parents=True)
    (logs / "scalars.json").write_text(_scalars(is_distilled, score, ends_at))
    lines = [
        f"work_dir = {str(folder)!r}",
        f"experiment_name = {folder.name!r}",
        f"randomness = dict(seed={seed})",
        f"val_evaluator_prefix = {str(folder / 'detections')!r}",
        config,
    ]
    (logs / "config.py").write_text("\n".join(lines) + "\n")
    (folder / "epoch_3.pth").write_bytes(b"weights")
    if found is not None:
        (folder / "detections.bbox.json").write_text(json.dumps(found))
    if parameters is not None:
        result = dict(name=name, seed=int(seed), parameters=parameters)
        (folder / "result.json").write_text(json.dumps(dict(result=result)))
    return folder


def ultralytics_work_dir(folder: Path, found: Sequence[dict]) -> Path:
    """A work dir of Ultralytics' trainer, with ``save_json``."""
    (folder / "weights").mkdir(parents=True)
    seed = folder.name.rpartition("_seed")[2]
    (folder / "args.yaml").write_text(f"epochs: 3\nimgsz: 96\nseed: {seed}\nlr0: 0.01\n")
    header = "epoch,time,train/box_loss,train/kd_neck,metrics/mAP50-95(B),val/box_loss,lr/pg0"
    rows = [f"{e},{e},{2 / e},{1 / e},{0.1 * e},{2.5 / e},0.01" for e in range(1, 4)]
    (folder / "results.csv").write_text("\n".join([header, *rows]) + "\n")
    (folder / "weights" / "last.pt").write_bytes(b"weights")
    (folder / "predictions.json").write_text(json.dumps(found))
    return folder


def make_inputs(folder: Path) -> Inputs:
    """A teacher without mistakes, a plain student of two seeds, and one distilled.

    The first seed of the plain student makes :data:`MISTAKES`; the distilled one, of Ultralytics,
    the first and the fourth of them.
    """
    annotations = folder / "annotations.json"
    annotations.write_text(json.dumps(_annotations()))
    images = folder / "photos"
    _write_photos(images)
    data = f"val_evaluator = dict(type='CocoMetric', ann_file={str(annotations)!r})\n"
    data += f"val_dataloader = dict(dataset=dict(data_prefix=dict(img={str(images)!r})))\n"
    deep, flat = (f"{data}model = dict(backbone=dict(depth={depth}))" for depth in (50, 18))
    return Inputs(
        annotations,
        images,
        mmengine_work_dir(
            folder / "teacher_seed0", config=deep, found=detections({}), parameters=40_000_000
        ),
        [
            mmengine_work_dir(
                folder / f"plain_seed{seed}",
                config=flat,
                found=detections(mistakes),
                parameters=10_000_000,
            )
            for seed, mistakes in enumerate((MISTAKES, {0: "missed", 6: "missed"}))
        ],
        ultralytics_work_dir(folder / "distilled_seed0", detections({0: "missed", 3: "duplicate"})),
    )


def scene_work_dirs(
    folder: Path, classes: Sequence[str], noise: Mapping[str, float], num_images: int = 30
) -> list[Path]:
    """Runs on random scenes with photos, like those of a demo.

    Args:
        folder: To write to.
        classes: Their names; the last has no objects.
        noise: Of the boxes that a run finds, by its name.
        num_images: Of 320 x 240 pixels.
    """
    truth = scenes.truth_of(1, num_images, category_ids=tuple(range(1, 1 + len(classes))))
    for category, name in zip(truth["categories"], classes, strict=True):
        category["name"] = name
    images = folder / "photos"
    images.mkdir(parents=True)
    for index, image in enumerate(truth["images"]):
        photo = Image.new("RGB", (image["width"], image["height"]), (40 + 5 * index, 90, 140))
        photo.save(images / image["file_name"])
    annotations = scenes.write(folder, "truth.json", truth)
    config = f"val_evaluator = dict(type='CocoMetric', ann_file={str(annotations)!r})\n"
    config += f"val_dataloader = dict(dataset=dict(data_prefix=dict(img={str(images)!r})))\n"
    return [
        mmengine_work_dir(
            folder / f"{name}_seed0",
            config=config,
            found=scenes.found_in(truth, seed, noise=of_run, missed=of_run),
            is_distilled=name not in ("plain", "teacher"),
            parameters=10_000_000,
        )
        for seed, (name, of_run) in enumerate(noise.items())
    ]
