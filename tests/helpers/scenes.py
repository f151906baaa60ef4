"""Small random detection sets in COCO's formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

IDS = (1, 3, 4, 90)


def truth_of(
    seed: int, num_images: int = 12, *, crowds: bool = True, category_ids: tuple[int, ...] = IDS
) -> dict[str, Any]:
    """Images with objects of all of COCO's sizes; the last category has none."""
    generator = np.random.default_rng(seed)
    images = [
        dict(id=5 * index + 2, file_name=f"photo_{index}.jpg", width=320, height=240)
        for index in range(num_images)
    ]
    annotations: list[dict[str, Any]] = []
    for image in images:
        for _ in range(generator.poisson(4)):
            width, height = np.exp(generator.normal(3.6, 0.9, 2)).clip(4, 200)
            x, y = generator.uniform(0, 320 - width), generator.uniform(0, 240 - height)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image["id"],
                    category_id=int(generator.choice(category_ids[:-1])),
                    bbox=[float(value) for value in (x, y, width, height)],
                    area=float(0.7 * width * height),
                    iscrowd=int(crowds and generator.random() < 0.1),
                )
            )
    categories = [dict(id=each, name=f"class {each}") for each in category_ids]
    return dict(images=images, annotations=annotations, categories=categories)


def found_in(
    truth: dict[str, Any], seed: int, *, noise: float = 0.1, missed: float = 0.2
) -> list[dict[str, Any]]:
    """Shifted copies of the objects, some of another class, and boxes at random; scores differ."""
    generator = np.random.default_rng(seed)
    ids = [category["id"] for category in truth["categories"]]
    found = []
    for annotation in truth["annotations"]:
        for _ in range(generator.integers(1, 4)):
            if generator.random() < missed:
                continue
            x, y, width, height = annotation["bbox"]
            shift = generator.normal(0, noise, 4)
            category = annotation["category_id"]
            found.append(
                dict(
                    image_id=annotation["image_id"],
                    category_id=int(generator.choice(ids))
                    if generator.random() < 0.2
                    else category,
                    bbox=[
                        float(x + shift[0] * width),
                        float(y + shift[1] * height),
                        float(width * np.exp(shift[2])),
                        float(height * np.exp(shift[3])),
                    ],
                )
            )
    for image in truth["images"]:
        for _ in range(3):
            x, y, width, height = generator.uniform(5, 100, 4).tolist()
            found.append(
                dict(
                    image_id=image["id"],
                    category_id=int(generator.choice(ids)),
                    bbox=[x, y, width, height],
                )
            )
    scores = generator.permutation(len(found)) / len(found)
    return [dict(entry, score=float(score)) for entry, score in zip(found, scores, strict=True)]


def write(folder: Path, name: str, content: Any) -> Path:
    """As JSON."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file
