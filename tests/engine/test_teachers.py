"""The ``teacher`` setting, and modules of the user's own as teachers; no trainer runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mmkd.engine.frozen_teacher import FrozenTeacher
from mmkd.engine.input_conversion import ImageFormat, InputConversion
from mmkd.engine.mmengine.teacher import MMTeacher
from mmkd.engine.teachers import ModuleTeacher, parse_teachers
from mmkd.terms import Tap, Term, parse_terms

CPU = torch.device("cpu")
WHERE = "Owner teacher"
MM = dict(config="t.py", checkpoint="t.pth")


class Net(nn.Module):
    """Two levels and a head; ``ran`` holds the images it was given."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(4)
            self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
            self.head = nn.Linear(6, 2)
            self.norm.running_mean.normal_(std=0.3)
            self.norm.running_var.uniform_(0.5, 2)
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, images: Tensor) -> Tensor:
        deep = self.second(torch.relu(self.norm(self.first(images))))
        return self.head(deep.mean(dim=(2, 3)))


class WithBackbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 5, 1)
        self.head = nn.Linear(5, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images).mean(dim=(2, 3)))


def term(name: str = "one", **taps: str) -> Term:
    return Term(name=name, source="teacher", **{side: (Tap(path),) for side, path in taps.items()})


def images(seed: int = 0) -> Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def seen_by(teacher: FrozenTeacher) -> list[Tensor]:
    """Fills with the images that the model is given."""
    seen: list[Tensor] = []
    teacher.model.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    return seen


# The setting ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teacher", "expected"),
    [
        (MM, dict(teacher=MMTeacher(WHERE, "t.pth", config="t.py"))),
        (
            dict(model=dict(type="X"), checkpoint="t.pth", allow_pickle=True),
            dict(teacher=MMTeacher(WHERE, "t.pth", model=dict(type="X"), allow_pickle=True)),
        ),
        (
            dict(a=MM, b=dict(MM, config="b.py")),
            dict(
                a=MMTeacher(f"{WHERE}.a", "t.pth", config="t.py"),
                b=MMTeacher(f"{WHERE}.b", "t.pth", config="b.py"),
            ),
        ),
    ],
)
def test_mm_settings(teacher: dict, expected: dict) -> None:
    assert parse_teachers("Owner", teacher) == expected


@pytest.mark.parametrize(
    ("settings", "image_format"),
    [
        (dict(order="rgb"), ImageFormat(swapped=True)),
        (dict(order="bgr"), ImageFormat()),
        (dict(mean=[1, 2, 3]), ImageFormat(mean=(1.0, 2.0, 3.0), swapped=True)),
        (
            dict(mean=(0, 0, 0), std=(255, 254, 253), order="bgr"),
            ImageFormat(std=(255.0, 254.0, 253.0)),
        ),
    ],
)
def test_images_that_are_stated(settings: dict, image_format: ImageFormat) -> None:
    net = Net()
    parsed: dict[str, Any] = parse_teachers(
        "Owner", dict(a=dict(MM, **settings), b=dict(module=net, **settings), c=dict(module=net))
    )
    assert parsed["a"].images.format() == parsed["b"].images.format() == image_format
    assert parsed["c"] == ModuleTeacher(f"{WHERE}.c", net, None)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (dict(student="second", teacher="head.classes"), "'head.classes' are known by name"),
        (dict(loss=dict(type="mmkd.ScoreWeightedL2Loss")), "the class scores by which the loss"),
    ],
)
def test_a_module_s_head_has_no_names(settings: dict, said: str) -> None:
    [term] = parse_terms(dict(x=settings), ["teacher"])
    [teacher] = parse_teachers("Owner", Net()).values()
    with pytest.raises(ValueError, match=rf"^Owner terms\.x\.teacher: {said}.* dict\(yolo="):
        teacher.build([term], None, torch.zeros(1, 3, 8, 8))


def test_a_module_may_have_one_of_such_a_name() -> None:
    head = nn.Module()
    head.classes = nn.Conv2d(6, 2, 1)
    net = nn.Sequential(nn.Conv2d(3, 6, 1), head.classes)
    net.head = head
    [term] = parse_terms(dict(x=dict(student="0", teacher="head.classes")), ["teacher"])
    [teacher] = parse_teachers("Owner", net).values()
    built, _ = teacher.build([term], None, torch.zeros(1, 3, 8, 8))
    assert built.probed["head.classes"].shape == (1, 2, 8, 8)


@pytest.mark.parametrize(
    ("teacher", "kind", "parts"),
    [
        (None, TypeError, (WHERE, "dict(yolo=...)", "dict(module=...)", "None")),
        ({}, TypeError, (WHERE, "{}")),
        ("yolov5m.pt", TypeError, (WHERE, "'yolov5m.pt'")),
        (dict(cofnig="t.py"), ValueError, (WHERE, "'cofnig'", "did you mean 'config'?")),
        (dict(a=MM, b={}), ValueError, (f"{WHERE}.b", "either 'config' or 'model'")),
        (dict(a=MM, b=None), ValueError, (WHERE, "no key 'a'", "config, model, checkpoint")),
        (dict(module=3), ValueError, (f"{WHERE}.module", "torch module", "3")),
        (dict(module=Net), ValueError, (f"{WHERE}.module", "torch module", "Net")),
        (
            dict(module=Net(), maen=[0] * 3),
            ValueError,
            (WHERE, "'maen'", "did you mean 'mean'?", "module, mean, std, order"),
        ),
        (
            dict(module=Net(), order="gbr"),
            ValueError,
            (f"{WHERE}.order", "('rgb', 'bgr', 'student')", "'gbr'"),
        ),
        (dict(module=Net(), mean=[1.0]), ValueError, (WHERE, "mean and std", "3 values each")),
        (dict(module=Net(), std=[1, 2]), ValueError, (WHERE, "mean and std", "3 values each")),
        (dict(module=Net(), mean=127.5), ValueError, (WHERE, "mean and std", "3 values each")),
        (dict(module=Net(), std=["a"] * 3), ValueError, (WHERE, "std")),
        (dict(module=Net(), std=[1.0, 0.0, 1.0]), ValueError, (WHERE, "std", "0.0")),
    ],
)
def test_wrong_settings(teacher: Any, kind: type[Exception], parts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as error:
        parse_teachers("Owner", teacher)
    missing = [part for part in parts if part not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"


# A module of the user's own ---------------------------------------------------------------


def build(
    settings: dict, *terms: Term, student: ImageFormat | None = None, **more: Any
) -> tuple[FrozenTeacher, list[Term]]:
    teacher = parse_teachers("Owner", settings)["teacher"]
    blank = torch.zeros(1, 3, 16, 16)
    return teacher.build(terms or [term()], student or ImageFormat(), blank, **more)


def test_the_default_tap_is_the_module_itself() -> None:
    net = Net()
    teacher, (found,) = build(dict(module=net))
    assert found == term(teacher="")
    torch.testing.assert_close(teacher.features(images())[""], net.eval()(images()))


def test_the_default_tap_is_its_backbone_where_it_has_one() -> None:
    net = WithBackbone()
    teacher, (found,) = build(dict(module=net))
    assert found == term()
    assert teacher.ran == {"backbone"}
    torch.testing.assert_close(teacher.features(images())["backbone"], net.backbone(images()))


def test_named_taps_and_how_far_it_runs() -> None:
    net = Net()
    terms = [term(teacher="first"), term("two", teacher="second")]
    teacher, found = build(dict(module=net), *terms)
    assert found == terms
    assert teacher.ran == {"first", "norm", "second"}
    assert teacher.introduction == (
        "Owner teacher: Net, a module from memory; input as the student sees it (assumed, for it "
        "tells no normalisation of its own); runs 3 of 4 modules"
    )
    assert {k: v.shape for k, v in teacher.probed.items()} == dict(
        first=(1, 4, 8, 8), second=(1, 6, 4, 4)
    )
    net.eval()
    first = net.first(images())
    features = teacher.features(images())
    torch.testing.assert_close(features["first"], first)
    torch.testing.assert_close(features["second"], net.second(torch.relu(net.norm(first))))


def test_the_users_module_stays_as_it_is() -> None:
    net = Net()
    net.head.eval()
    net.second.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    trained = [parameter.requires_grad for parameter in net.parameters()]
    teacher, _ = build(dict(module=net), term(teacher="second"), dtype=torch.bfloat16)
    teacher.features(images())
    after = net.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [value.dtype for value in before.values()] == [v.dtype for v in after.values()]
    assert [module.training for module in net.modules()] == modes
    assert [parameter.requires_grad for parameter in net.parameters()] == trained
    assert not any(module._forward_hooks for module in net.modules())
    assert all(p.is_contiguous() for p in net.parameters())
    # The teacher, on the other hand, is frozen.
    assert not any(module.training for module in teacher.model.modules())
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())


@pytest.mark.parametrize("part", ["parameter", "buffer"])
def test_a_module_with_values_of_rank_5(part: str) -> None:
    """Weights need not be those of convolutions."""
    net = Net()
    value = torch.ones(1, 1, 1, 2, 2)
    if part == "buffer":
        net.register_buffer("grid", value)
    else:
        net.grid = nn.Parameter(value)
    teacher, _ = build(dict(module=net))
    torch.testing.assert_close(teacher.features(images())[""], net.eval()(images()))


def test_a_tap_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match=r"^Owner terms\.one\.teacher: Net has no module 'secnd'"):
        build(dict(module=Net()), term(teacher="secnd"))


def test_a_tap_that_does_not_run() -> None:
    with pytest.raises(RuntimeError, match=r"^Owner teacher: the module 'spare' did not run"):
        build(dict(module=Net(spare=nn.Conv2d(3, 3, 1))), term(teacher="spare"))


# Its images -------------------------------------------------------------------------------

# RGB in 0..1, as the YOLO adapter's, and as MMDetection prepares them.
UNIT = ImageFormat(std=(255.0, 255.0, 255.0), swapped=True)
IMAGENET = ImageFormat(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), swapped=True)


def raw(prepared: Tensor, source: ImageFormat) -> Tensor:
    """The images as loaded: 0..255, blue first; in float64."""
    std, mean = (torch.tensor(v, dtype=torch.float64) for v in (source.std, source.mean))
    loaded = prepared.double() * std.view(3, 1, 1) + mean.view(3, 1, 1)
    return loaded[:, [2, 1, 0]] if source.swapped else loaded


@pytest.mark.parametrize("source", [UNIT, IMAGENET], ids=["unit", "imagenet"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize(
    ("mean", "std"),
    [((0, 0, 0), (1, 1, 1)), ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))],
)
def test_images_are_converted(source: ImageFormat, order: str, mean: tuple, std: tuple) -> None:
    settings = dict(module=Net(), mean=mean, std=std, order=order)
    teacher, _ = build(settings, term(teacher="first"), student=source)
    seen = seen_by(teacher)
    teacher.features(images())
    loaded = raw(images(), source)
    ordered = loaded[:, [2, 1, 0]] if order == "rgb" else loaded
    expected = torch.stack(
        [(ordered[:, c] - mean[c]) / std[c] for c in range(3)],
        dim=1,
    )
    torch.testing.assert_close(seen[0].double(), expected, rtol=1e-5, atol=1e-4)
    assert "input converted" in teacher.introduction


def preprocessor() -> nn.Module:
    from mmengine.model import ImgDataPreprocessor

    return ImgDataPreprocessor(mean=[10.0, 20, 30], std=[4.0, 5, 6], bgr_to_rgb=False)


def test_its_own_preprocessor_tells_its_format() -> None:
    teacher, _ = build(
        dict(module=Net(data_preprocessor=preprocessor())), term(teacher="first"), student=UNIT
    )
    seen = seen_by(teacher)
    teacher.features(images())
    loaded = raw(images(), UNIT)
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in ((10, 20, 30), (4, 5, 6)))
    expected = (loaded - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(seen[0].double(), expected, rtol=1e-5, atol=1e-4)


def test_what_is_said_goes_before_its_own_preprocessor() -> None:
    module = Net(data_preprocessor=preprocessor())
    settings = dict(module=module, std=[255.0] * 3, order="rgb")
    teacher, _ = build(settings, term(teacher="first"), student=UNIT)
    seen = seen_by(teacher)
    batch = images()
    teacher.features(batch)
    assert torch.equal(seen[0], batch)


def test_padding_is_not_converted() -> None:
    """Where the samples tell which part of an image is padding, the teacher sees its own."""
    module = Net(data_preprocessor=preprocessor())
    module.data_preprocessor.pad_value = 7
    teacher, _ = build(dict(module=module), term(teacher="first"), student=UNIT)
    seen = seen_by(teacher)
    samples = [BaseDataElement(metainfo=dict(img_shape=size)) for size in ((16, 16), (10, 12))]
    teacher.features(images(), samples)
    teacher.features(images())
    (padded, whole) = seen
    assert torch.equal(padded[0], whole[0])
    assert torch.equal(padded[1, :, :10, :12], whole[1, :, :10, :12])
    assert (padded[1, :, 10:] == 7).all() and (padded[1, :, :, 12:] == 7).all()
    assert (whole[1, :, 10:] != 7).all()


# How it runs ------------------------------------------------------------------------------


def test_half_precision_whatever_the_autocast() -> None:
    teacher, _ = build(dict(module=Net()), term(teacher="second"), dtype=torch.bfloat16)
    half = teacher.features(images())["second"]
    with torch.autocast("cpu", dtype=torch.float16):
        inside = teacher.features(images())["second"]
    exact = build(dict(module=Net()), term(teacher="second"))[0].features(images())["second"]
    assert half.dtype == inside.dtype == torch.bfloat16
    assert torch.equal(half, inside)
    assert not torch.equal(half.float(), exact)
    torch.testing.assert_close(half.float(), exact, rtol=0.05, atol=0.05)


def test_without_a_type_it_follows_the_autocast() -> None:
    teacher, _ = build(dict(module=Net()), term(teacher="second"))
    assert teacher.features(images())["second"].dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert teacher.features(images())["second"].dtype == torch.bfloat16


def test_a_forward_pass_of_ones_own() -> None:
    calls: list[Any] = []

    def forward(model: nn.Module, inputs: Tensor, context: Any) -> Any:
        calls.append(context)
        return model(inputs + 1)

    def build(forward: Any) -> FrozenTeacher:
        taps = [("Owner terms.one.teacher", "second")]
        same = InputConversion(ImageFormat(), ImageFormat())
        return FrozenTeacher(WHERE, Net(), taps, same, torch.zeros(1, 3, 16, 16), forward=forward)

    context = object()
    ours = build(forward).features(images(), context)
    theirs = build(None).features(images() + 1)
    torch.testing.assert_close(ours, theirs)
    assert calls == [None, context]


def test_no_gradient_leaves_the_teacher() -> None:
    teacher, _ = build(dict(module=Net()), term(teacher="second"))
    feature = teacher.features(images().requires_grad_())["second"]
    assert not feature.requires_grad
