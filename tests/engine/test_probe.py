"""The blank image on which all is tried before training: of the size that the models take."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from helpers.plain_loops import Net, net
from mmkd import FeatureDistiller
from mmkd.engine.plain import distill
from mmkd.engine.probe import parse_probe_size


class Picky(Net):
    """Refuses all images but those of one size, each time in another way."""

    def __init__(self, error: Exception, size: tuple[int, int] = (16, 24)) -> None:
        super().__init__(4)
        self.error, self.size = error, size
        self.asked: list[tuple[int, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(tuple(images.shape[2:]))
        if self.asked[-1] != self.size:
            raise self.error
        return super().forward(images)


ERRORS = [AssertionError("Input height\n (128) does not fit"), IndexError(), RuntimeError("mat1")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_what_fails_on_the_blank_image_names_the_setting(side: str, error: Exception) -> None:
    models = {"student": net(4), "teacher": net(6), side: Picky(error)}
    said = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    with pytest.raises(ValueError) as found:
        distill(**models, probe_size=64)
    assert str(found.value) == (
        f"distill probe_size: the {side} fails on a blank image of 64 x 64 pixels, on which it is "
        f"tried before training ({said}): if it takes images of another size, give theirs, as "
        "probe_size=224 or probe_size=(height, width)"
    )


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_probe_of_the_size_that_is_given(side: str) -> None:
    distill(
        **{"student": net(4), "teacher": net(6), side: Picky(ValueError())}, probe_size=(16, 24)
    )


def test_lack_of_memory_is_for_the_trainer_to_handle() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        distill(Picky(torch.OutOfMemoryError("no memory")), net(6))


@pytest.mark.parametrize(
    ("value", "size"),
    [(None, None), (32, (32, 32)), ((20, 30), (20, 30)), ([20, 30], (20, 30))],
)
def test_settings(value: Any, size: tuple[int, int] | None) -> None:
    assert parse_probe_size("Owner", value) == size


@pytest.mark.parametrize("value", [0, (3,), (3, 4, 5), (3, -1), 2.5, "large", (3, "x")])
def test_wrong_settings(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^Owner probe_size: expected .* \(height, width\), got"):
        parse_probe_size("Owner", value)


def test_a_loop_s_default_suits_models_of_a_fixed_size() -> None:
    images = dict(std=[255.0] * 3)
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=0)
    tokens = dict(teacher="norm", teacher_extra_tokens=1)
    distillation = distill(net(4), vit, dict(one=tokens), images=images)
    assert distillation.teachers["teacher"].probed["norm"].shape == (1, 197, 192)
    ssd = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    levels = dict(student="backbone", student_level="0", teacher="backbone")
    distill(ssd, net(6), dict(one=levels))


def test_tokens_of_a_vit_of_wide_images() -> None:
    """512 x 288 pixels of patches of 16 are 18 x 32 = 576 tokens, which are no 24 x 24."""
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=(288, 512)).eval()
    student = net(4)
    term = dict(teacher="norm", teacher_extra_tokens=1)
    images = torch.rand(2, 3, 288, 512, generator=torch.Generator().manual_seed(0))
    unit = dict(mean=[127.5] * 3, std=[127.5] * 3)
    with distill(student, vit, dict(one=term), images=unit, probe_size=(288, 512)) as distillation:
        student.train()(images)
        found = distillation.loss(images)
    with torch.no_grad():
        (as_map,) = vit.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
    expected = FeatureDistiller(4, 192)(student.backbone(images), as_map)
    assert as_map.shape == (2, 192, 18, 32)
    torch.testing.assert_close(found, expected)


class Windowed(nn.Module):
    """Pads as a Swin does, and returns tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 16, stride=16)

    def as_map(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        return self.patches(nn.functional.pad(images, (0, -width % 16, 0, -height % 16)))

    def forward(self, images: Tensor) -> Tensor:
        return self.as_map(images).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("size", [(40, 72), (72, 40), (56, 200), (64, 64)])
def test_tokens_of_padded_images(size: tuple[int, int]) -> None:
    student, teacher = net(4), Windowed()
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with distill(student, teacher, dict(backbone=dict())) as distillation:
        student(images)
        found = distillation.loss(images)
    expected = FeatureDistiller(4, 6)(student.backbone(images), teacher.as_map(images))
    torch.testing.assert_close(found, expected)


def test_channels_last_are_refused() -> None:
    """A timm Swin's maps are [N, H, W, C]."""
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", features_only=True, depths=(1, 1, 1, 1), embed_dim=24
    )
    term = dict(teacher="", teacher_level=-1)
    with pytest.raises(
        ValueError, match=r"^distill terms\.one\.teacher: the feature \(1, 7, 7, 192"
    ):
        distill(net(4), swin, dict(one=term), images=dict(std=[255.0] * 3))
