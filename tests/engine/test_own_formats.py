"""The images that other people's models take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from mmcv.transforms import LoadImageFromFile
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.models import get_model_weights

from helpers.plain_loops import Net, net
from mmkd.engine.input_conversion import ImageFormat, Order
from mmkd.engine.mmengine.loaded_order import configured_order, loaded_order
from mmkd.engine.own_formats import format_of
from mmkd.engine.plain import distill
from mmkd.engine.teachers import parse_teachers
from mmkd.errors import InputError
from mmkd.terms import Tap, Term

UNIT = ImageFormat(std=(255.0,) * 3, swapped=True)
TERM = Term("one", "teacher", teacher=(Tap(""),))


def constants(image_format: ImageFormat | None) -> tuple[Tensor, Tensor]:
    """Of RGB images from 0 to 1."""
    assert image_format is not None
    assert image_format.swapped
    return torch.tensor(image_format.mean) / 255, torch.tensor(image_format.std) / 255


@pytest.mark.parametrize("features_only", [False, True])
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_timm_s_constants(name: str, features_only: bool) -> None:
    known = format_of(timm.create_model(name, features_only=features_only))
    mean, std = constants(known.format)
    torch.testing.assert_close(mean, torch.tensor(timm.get_pretrained_cfg(name).mean))
    torch.testing.assert_close(std, torch.tensor(timm.get_pretrained_cfg(name).std))
    assert "timm's pretrained_cfg" in str(known)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_v2_l", "googlenet"]
)
def test_torchvision_s_constants(name: str) -> None:
    with torch.device("meta"):
        known = format_of(getattr(torchvision.models, name)())
    mean, std = constants(known.format)
    expected = next(iter(get_model_weights(name))).transforms()
    torch.testing.assert_close(mean, torch.tensor(expected.mean))
    torch.testing.assert_close(std, torch.tensor(expected.std))


@pytest.mark.parametrize(
    "model", [Net(4), nn.Sequential(), torchvision.models.video.r3d_18()], ids=lambda m: type(m)
)
def test_nothing_is_known_of_others(model: nn.Module) -> None:
    assert format_of(model).format is None


def test_a_timm_teacher_sees_images_of_its_own_normalisation() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, global_pool="avg")
    teacher, _ = parse_teachers("Owner", model)["teacher"].build(
        [TERM], UNIT, torch.zeros(1, 3, 32, 32)
    )
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = model.eval()((images - 0.5) / 0.5)
    torch.testing.assert_close(teacher.features(images)[""], expected, rtol=1e-4, atol=1e-5)
    assert (
        "input converted (mean 127.5 127.5 127.5, std 127.5 127.5 127.5 of 0 to 255, RGB: timm's "
        "pretrained_cfg)" in teacher.introduction
    )


def test_what_is_set_goes_before_the_constants() -> None:
    settings = dict(module=timm.create_model("resnet10t", num_classes=2), std=[255.0] * 3)
    teacher, _ = parse_teachers("Owner", settings)["teacher"].build(
        [TERM], UNIT, torch.zeros(1, 3, 32, 32)
    )
    assert "input as the student sees it (mean 0 0 0, std 255 255 255" in teacher.introduction
    assert "RGB: as set)" in teacher.introduction


def test_a_loop_says_how_its_images_are_normalised(caplog: pytest.LogCaptureFixture) -> None:
    teacher = timm.create_model("resnet10t", num_classes=2)
    terms = dict(one=dict(student="backbone", teacher="layer4"))
    with pytest.raises(ValueError, match=r"distill teacher .*give images=dict\(mean="):
        distill(net(4), teacher, terms)
    with caplog.at_level("INFO", logger="mmkd"):
        distill(net(4), teacher, terms, images=dict(std=[255.0] * 3))
    assert "input converted (mean 123.67 116.28 103.53," in caplog.text
    assert "student: its images have mean 0 0 0, std 255 255 255" in caplog.text


def test_channels_are_not_swapped_on_a_guess() -> None:
    """MMPretrain's CIFAR classes hold RGB, where what is read from files is BGR."""
    network = torchvision.models.resnet18()
    blank = torch.zeros(1, 3, 32, 32)
    unknown = ImageFormat(loaded=None)
    for said in ({}, *(dict(std=[1.0] * 3, order=order) for order in ("rgb", "bgr"))):
        [teacher] = parse_teachers("Owner", dict(module=network, **said)).values()
        with pytest.raises(InputError, match=r"Owner teacher: it takes (RGB|BGR), .*is not known"):
            teacher.build([TERM], unknown, blank)
    [teacher] = parse_teachers("Owner", dict(module=network)).values()
    for known in (ImageFormat(), ImageFormat(swapped=True, loaded=None)):
        teacher.build([TERM], known, blank)


def test_an_order_alone_does_not_undo_a_normalisation() -> None:
    blank = torch.zeros(1, 3, 32, 32)
    [teacher] = parse_teachers(
        "Owner", dict(module=torchvision.models.resnet18(), order="rgb")
    ).values()
    said = r"Owner teacher\.order: .* that torchvision's weights .* give mean and std beside it"
    with pytest.raises(InputError, match=said):
        teacher.build([TERM], ImageFormat(), blank)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("loaded", ["rgb", "bgr", None])
@pytest.mark.parametrize("order", ["rgb", "bgr", "student"])
def test_channels_come_in_the_order_that_a_teacher_states(
    swapped: bool, loaded: Order | None, order: str
) -> None:
    """Whatever order they were loaded in: MMPretrain's CIFAR classes hold RGB."""
    student = ImageFormat(swapped=swapped, loaded=loaded)
    settings = dict(module=nn.Identity(), mean=[0.0] * 3, order=order)
    [teacher] = parse_teachers("Owner", settings).values()
    images = torch.arange(3.0).view(1, 3, 1, 1)
    sees = {"rgb": "bgr", "bgr": "rgb"}.get(str(loaded), "rgb") if swapped else loaded
    if sees is None and order != "student":
        with pytest.raises(InputError, match="not known"):
            teacher.build([TERM], student, images)
        return
    built, _ = teacher.build([TERM], student, images)
    is_kept = order in ("student", sees)
    assert torch.equal(built.features(images)[""], images if is_kept else images.flip(1))


def test_in_which_order_images_are_loaded() -> None:
    class CIFAR100(Holding): ...

    class Wrapping(Holding):
        def __init__(self, *datasets: Dataset) -> None:
            self.datasets, self.pipeline = datasets, SimpleNamespace(transforms=())

    reader = LoadImageFromFile()
    assert loaded_order(Holding(reader, object())) == "bgr"
    assert loaded_order(Holding(object())) is None
    assert loaded_order(CIFAR100(object())) == "rgb"
    assert loaded_order([1, 2]) is None
    assert loaded_order(Wrapping(Holding(reader), Wrapping(Holding(reader)))) == "bgr"
    assert loaded_order(Wrapping(Holding(reader), CIFAR100())) is None


def test_in_which_order_a_config_loads_images() -> None:
    files = dict(type="CocoDataset", pipeline=[dict(type="LoadImageFromFile")])
    assert configured_order(files) == "bgr"
    assert configured_order(dict(files, pipeline=[dict(type="mmcv.LoadImageFromFile")])) == "bgr"
    assert configured_order(dict(type="mmpretrain.CIFAR10", pipeline=[])) == "rgb"
    assert configured_order(dict(type="RepeatDataset", dataset=files)) == "bgr"
    assert configured_order(dict(type="MyDataset", pipeline=[])) is None
    assert configured_order(None) is None


class Holding(Dataset):
    """As a data set of MMEngine's."""

    def __init__(self, *steps: object) -> None:
        self.pipeline = SimpleNamespace(transforms=steps)
