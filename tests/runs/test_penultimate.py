"""What networks hold of objects just before they name them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor
from typer.testing import CliRunner

from helpers.classifier_toy import CLASSES, STUDENT_WIDTH, LabelledNoise, classifier_config
from helpers.classifier_toy import VALIDATION as CLASSIFIER_VALIDATION
from helpers.detector import detector_config
from helpers.toy import VALIDATION, toy_config, train
from helpers.yolo_toy import make_toy, plain
from mmkd.box_features import in_boxes
from mmkd.cli import app
from mmkd.data import make_digits
from mmkd.engine.evenly import evenly
from mmkd.errors import InputError
from mmkd.runs.mmengine.penultimate import _boxes
from mmkd.runs.penultimate import penultimate_features
from mmkd.work_dirs import read_work_dir


def test_means_in_boxes() -> None:
    generator = torch.Generator().manual_seed(0)
    fine = torch.rand(2, 3, 8, 12, generator=generator)
    coarse = torch.rand(2, 5, 4, 6, generator=generator)
    # Of 32 x 48 pixels; in whole cells of both levels, 4 and 8 pixels wide.
    boxes = [torch.tensor([[8.0, 0, 24, 16], [0, 8, 8, 32]]), torch.tensor([[16.0, 16, 48, 24]])]
    found = in_boxes([fine, coarse], boxes, (32, 48))
    assert found.shape == (3, 8)
    rows = [(0, boxes[0][0]), (0, boxes[0][1]), (1, boxes[1][0])]
    for row, (image, box) in zip(found, rows, strict=True):
        parts = []
        for level, stride in ((fine, 4), (coarse, 8)):
            x1, y1, x2, y2 = (int(side) // stride for side in box)
            parts.append(level[image, :, y1:y2, x1:x2].mean(dim=(1, 2)))
        assert torch.allclose(row, torch.cat(parts), atol=1e-6)


def test_images_without_boxes_have_none() -> None:
    boxes = [torch.zeros(0, 4), torch.tensor([[0.0, 0, 8, 8]])]
    assert in_boxes([torch.rand(2, 3, 4, 4)], boxes, (16, 16)).shape == (1, 3)
    assert in_boxes([torch.rand(2, 3, 4, 4)], [boxes[0]] * 2, (16, 16)).shape == (0, 3)


@pytest.mark.parametrize(
    ("count", "total", "found"),
    [(3, 9, [0, 3, 6]), (4, 10, [0, 2, 5, 7]), (20, 3, [0, 1, 2]), (0, 5, [])],
)
def test_images_are_spread(count: int, total: int, found: list[int]) -> None:
    assert evenly(count, total) == found


def test_a_classifier_s_feature_is_what_its_last_layer_is_given(tmp_path: Path) -> None:
    runner = train(classifier_config(tmp_path, **CLASSIFIER_VALIDATION))
    found = penultimate_features(read_work_dir(runner.work_dir), 4)
    assert found.features.shape == (4, STUDENT_WIDTH)
    assert found.classes == ("blue", "green", "red")
    # Of six, evenly.
    images = LabelledNoise(6, offset=1000)
    chosen = [0, 1, 3, 4]
    assert found.labels.tolist() == [index % CLASSES for index in chosen]
    model = runner.model.eval()
    with torch.no_grad():
        batch = torch.stack([images.image(index) for index in chosen]).flip(1).float()
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in ([120.0, 110, 100], [60, 55, 50]))
        mapped = model.backbone((batch - mean) / std)[0]
    assert torch.allclose(found.features, mapped.mean(dim=(2, 3)), atol=1e-5)
    # A run is only looked at.
    assert (Path(runner.work_dir) / "last_checkpoint").is_file()


def test_a_preprocessor_beside_the_model(tmp_path: Path) -> None:
    """As in MMPretrain's own configs."""
    within = classifier_config(tmp_path, **CLASSIFIER_VALIDATION)
    beside = classifier_config(tmp_path, **CLASSIFIER_VALIDATION)
    beside.data_preprocessor = beside.model.pop("data_preprocessor")
    beside.data_preprocessor.pop("type")
    found = [
        penultimate_features(read_work_dir(train(config).work_dir), 4)
        for config in (within, beside)
    ]
    assert torch.equal(found[0].features, found[1].features)


def test_a_run_that_has_diverged(tmp_path: Path) -> None:
    runner = train(classifier_config(tmp_path, **CLASSIFIER_VALIDATION))
    file = Path(runner.work_dir) / "epoch_2.pth"
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["state_dict"]["backbone.conv.weight"][0] = torch.nan
    torch.save(checkpoint, file)
    with pytest.raises(InputError, match=r"epoch_2\.pth returns values that are not finite"):
        penultimate_features(read_work_dir(runner.work_dir), 4)


def test_several_classes_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = train(classifier_config(tmp_path, **CLASSIFIER_VALIDATION))
    one = LabelledNoise.__getitem__

    def two(self: LabelledNoise, index: int) -> dict[str, Any]:
        found = one(self, index)
        found["data_samples"].set_gt_label([0, 1])
        return found

    monkeypatch.setattr(LabelledNoise, "__getitem__", two)
    with pytest.raises(InputError, match="expected one class an image, found 2"):
        penultimate_features(read_work_dir(runner.work_dir), 4)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    return make_digits(folder, num_train=8, num_val=4, image_size=64, max_digits=4)


def annotations(digits: Path) -> list[dict[str, Any]]:
    found = json.loads((digits / "annotations/val.json").read_text())["annotations"]
    return sorted(found, key=lambda each: each["image_id"])


def detector_run(digits: Path, folder: Path, scale: int = 64) -> Path:
    config = detector_config(digits, folder)
    config.train_cfg.max_epochs = 1
    for loader in (config.val_dataloader, config.test_dataloader):
        next(step for step in loader.dataset.pipeline if step.type == "Resize").scale = (
            scale,
            scale,
        )
    return Path(train(config).work_dir)


def test_a_detector_s_features_are_its_neck_s_in_the_boxes(digits: Path, tmp_path: Path) -> None:
    folder = detector_run(digits, tmp_path)
    found = penultimate_features(read_work_dir(folder), 100)
    assert len(found.labels) == len(annotations(digits))
    config = Config.fromfile(next(folder.glob("*.py")))
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
    widths = model.neck.out_channels * model.neck.num_outs
    assert found.features.shape == (len(found.labels), widths)
    assert found.classes == tuple(map(str, range(10)))


def test_boxes_are_scaled_as_the_images(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def note(maps: list[Tensor], boxes: list[Tensor], size: tuple[int, int]) -> Tensor:
        assert size == (128, 128)
        seen.extend(boxes)
        return in_boxes(maps, boxes, size)

    monkeypatch.setattr("mmkd.runs.mmengine.penultimate.in_boxes", note)
    penultimate_features(read_work_dir(detector_run(digits, tmp_path, 128)), 100)
    # Drawn at 64 pixels.
    expected = [
        (x, y, x + w, y + h) for x, y, w, h in (each["bbox"] for each in annotations(digits))
    ]
    assert torch.allclose(torch.cat(seen), 2 * torch.tensor(expected).float())


def test_boxes_of_padded_images() -> None:
    """mmdet's RandomCenterCropPad pads on all sides, and tells top, bottom, left and right."""
    info = dict(instances=[dict(bbox=[1.0, 2.0, 3.0, 5.0], bbox_label=4)])
    about = dict(scale_factor=(2.0, 3.0), border=[10.0, 90.0, 20.0, 80.0])
    [box], labels = _boxes(SimpleNamespace(file="f"), info, SimpleNamespace(metainfo=about))
    assert (box.tolist(), labels.tolist()) == ([2 + 20, 6 + 10, 6 + 20, 15 + 10], [4])
    for about, message in (
        (dict(img_shape=(8, 8), ori_shape=(4, 4)), "does not say how: add scale_factor"),
        ({}, "with boxes, or with a class each"),
    ):
        with pytest.raises(InputError, match=message):
            _boxes(
                SimpleNamespace(file="f"), info if about else {}, SimpleNamespace(metainfo=about)
            )


def test_a_yolo_s_features(tmp_path: Path) -> None:
    toy = make_toy(tmp_path)
    trainer = plain(toy)
    found = penultimate_features(read_work_dir(trainer.save_dir), 3)
    files = sorted((toy.data.parent / "labels" / "val").iterdir())
    lines = [file.read_text().split("\n") for file in files]
    count = len(files)
    chosen = [lines[index * count // 3] for index in range(3)]
    labels = [int(line.split()[0]) for each in chosen for line in each if line]
    assert found.labels.tolist() == labels
    assert len(found.features) == len(labels)
    assert found.features.isfinite().all()
    assert len(set(found.features[:, 0].tolist())) == len(labels)


def test_what_cannot_be_looked_at(tmp_path: Path, digits: Path) -> None:
    plain_model = train(toy_config(tmp_path, **VALIDATION))
    with pytest.raises(InputError, match="ToyModel is no model of MMDetection's or MMPretrain's"):
        penultimate_features(read_work_dir(plain_model.work_dir), 4)
    folder = detector_run(digits, tmp_path)
    (digits / "annotations/val.json").rename(digits / "annotations/moved.json")
    with pytest.raises(InputError, match="cannot be run on its validation images: FileNotFound"):
        penultimate_features(read_work_dir(folder), 4)
    (digits / "annotations/moved.json").rename(digits / "annotations/val.json")
    for file in folder.glob("*.pth"):
        file.unlink()
    with pytest.raises(InputError, match="expected a checkpoint, found none"):
        penultimate_features(read_work_dir(folder), 4)


def test_the_command_draws_runs_side_by_side(tmp_path: Path, digits: Path) -> None:
    folders = [detector_run(digits, tmp_path) for _ in range(2)]
    out = tmp_path / "out"
    named = [f"{name}={folder}" for name, folder in zip("ab", folders, strict=True)]
    done = CliRunner().invoke(app, ["analyze", "--tsne", "4", *named, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert {file.name for file in out.iterdir()} == {"tsne.png", "tsne.svg", "tsne.csv"}
    rows = (out / "tsne.csv").read_text().splitlines()
    assert rows[0] == "run,class,x,y"
    # Seeded alike, the two runs are the same; and so are their places.
    ours, theirs = ([r.partition(",")[2] for r in rows if r.startswith(f"{n},")] for n in "ab")
    assert ours == theirs != []
