"""Distillation in a loop of one's own, around toys and other people's models."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from helpers import plain_loops
from helpers.plain_loops import Net, batch, net, trained, weights
from mmkd import FeatureDistiller
from mmkd.analysis import linear_cka
from mmkd.box_masks import object_cells
from mmkd.engine.plain import PlainDistillation, distill
from mmkd.errors import SettingError
from mmkd.features import evaluation_mode, pair_as_samples
from mmkd.losses import Loss, Takes
from mmkd.registry import MODELS
from mmkd.targets import Targets

TERMS = dict(last=dict(weight=0.5), first=dict(student="backbone.0", teacher="backbone.0"))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


# What it computes ---------------------------------------------------------------------------


def test_the_loss_is_that_of_the_features() -> None:
    student, teacher = net(4), net(6, seed=1)
    images, _ = batch()
    with distill(student, teacher, TERMS, seed=3) as distillation:
        student(images)
        loss = distillation.loss(images)
    expected = torch.zeros(())
    for index, (weight, depth) in enumerate(((0.5, None), (1.0, 1))):
        parts = (each.backbone[:depth] for each in (student, teacher.eval()))
        ours, theirs = (part(images) for part in parts)
        expected = expected + weight * FeatureDistiller(4, 6, seed=3 + index)(ours, theirs)
    torch.testing.assert_close(loss, expected)
    assert list(distillation.measured) == ["last", "first"]
    measured = distillation.measured["last"]
    torch.testing.assert_close(measured.weighted, 0.5 * measured.distance)


def test_student_and_projectors_learn_and_the_teacher_does_not() -> None:
    student, teacher = net(4), net(6, seed=1)
    before, theirs = weights(student), weights(teacher)
    distillation = distill(student, dict(module=teacher), TERMS)
    first = [each.detach().clone() for each in distillation.parameters()]
    trained(student, distillation, steps=2)
    assert all(not torch.equal(a, b) for a, b in zip(first, distillation.parameters(), strict=True))
    assert not same(weights(student), before)
    assert same(weights(teacher), theirs) and teacher.training
    # Nothing of it stays with the student.
    assert weights(student).keys() == before.keys()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in student.modules())


@pytest.mark.parametrize("weight", [0, dict(share=0)])
def test_weight_0_is_plain_training(weight: Any) -> None:
    plain, distilled = net(4, dropout=0.3), net(4, dropout=0.3)
    trained(plain, None, steps=3)
    off = distill(distilled, net(6, seed=1), dict(one=dict(weight=weight)))
    losses = trained(distilled, off, steps=3)
    assert same(weights(plain), weights(distilled))
    assert losses == [0.0] * 3


def test_building_draws_nothing(untouched_random_state: None) -> None:
    with torch.random.fork_rng():
        student, teacher = net(4), net(6, seed=1)
    distill(student, teacher, TERMS)


def test_a_schedule_counts_calls_or_epochs() -> None:
    terms = dict(one=dict(schedule=dict(begin=1, end=3)))
    by_epoch = distill(net(4), net(6, seed=1), terms, iterations_per_epoch=2)
    losses = trained(by_epoch_student := by_epoch._student, by_epoch, steps=8)
    assert [loss > 0 for loss in losses] == [False] * 2 + [True] * 4 + [False] * 2
    del by_epoch_student
    terms["one"]["schedule"] = dict(begin=1, end=3, by_epoch=False)
    by_call = distill(net(4), net(6, seed=1), terms)
    assert [loss > 0 for loss in trained(by_call._student, by_call, steps=4)] == [
        False,
        True,
        True,
        False,
    ]


def test_stopped_and_resumed_equals_uninterrupted() -> None:
    terms = dict(one=dict(schedule=dict(ramp=4, by_epoch=False)))

    def begun() -> tuple[Net, PlainDistillation, torch.optim.Optimizer]:
        student = net(4)
        distillation = distill(student, net(6, seed=1), terms)
        return student, distillation, plain_loops.optimizer(student, distillation)

    whole, distillation, optimizer = begun()
    trained(whole, distillation, steps=4, optimizer=optimizer)
    part, distillation, optimizer = begun()
    trained(part, distillation, steps=2, optimizer=optimizer)
    saved = copy.deepcopy(
        dict(s=part.state_dict(), d=distillation.state_dict(), o=optimizer.state_dict())
    )
    resumed, distillation, optimizer = begun()
    with torch.no_grad():
        for parameter in distillation.parameters():
            parameter.zero_()
    resumed.load_state_dict(saved["s"])
    distillation.load_state_dict(saved["d"])
    optimizer.load_state_dict(saved["o"])
    trained(resumed, distillation, steps=2, start=2, optimizer=optimizer)
    assert same(weights(resumed), weights(whole))
    with pytest.raises(
        RuntimeError, match=r"distill terms \(do they match the run that is resumed"
    ):
        distill(net(4), net(6, seed=1), TERMS).load_state_dict(saved["d"])


def test_accumulated_gradients_are_those_of_the_sum() -> None:
    student, teacher = net(4), net(6, seed=1)
    distillation = distill(student, teacher, dict(one=dict()))
    with distillation:
        for index in range(2):
            images, labels = batch(index)
            (cross_entropy(student(images), labels) + distillation.loss(images)).backward()
    found = [p.grad.clone() for p in [*student.parameters(), *distillation.parameters()]]
    for parameter in [*student.parameters(), *distillation.parameters()]:
        parameter.grad = None
    total: Any = 0
    with distillation:
        for index in range(2):
            images, labels = batch(index)
            total = total + cross_entropy(student(images), labels) + distillation.loss(images)
    total.backward()
    for one, other in zip(found, [*student.parameters(), *distillation.parameters()], strict=True):
        torch.testing.assert_close(one, other.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_with_a_scaler(dtype: torch.dtype) -> None:
    student, teacher = net(4), net(6, seed=1)
    distillation = distill(student, teacher, dict(one=dict()))
    optimizer = plain_loops.optimizer(student, distillation)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    before = weights(student)
    with distillation:
        for index in range(2):
            images, labels = batch(index)
            with torch.autocast("cpu", dtype):
                loss = cross_entropy(student(images), labels) + distillation.loss(images)
            assert distillation.measured["one"].distance.dtype == torch.float32
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert not same(weights(student), before)
    assert all(torch.isfinite(each).all() for each in student.parameters())


# Targets ------------------------------------------------------------------------------------


@MODELS.register_module()
class Asking(Loss):
    """Keeps what it is told of the images; a loss of a user's own."""

    takes = Takes(form="maps", targets=("boxes",))

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Targets] = []

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Targets) -> Tensor:
        self.told.append(targets)
        return (student - teacher).square().mean()


def asked(distillation: PlainDistillation) -> list[Targets]:
    (distiller,) = distillation._distillation.distillers.values()
    return distiller.loss.told


def test_targets_are_handed_on() -> None:
    student = net(4)
    terms = dict(one=dict(loss=dict(type="Asking")))
    images, labels = batch()
    with distill(student, net(6, seed=1), terms) as distillation:
        student(images)
        distillation.loss(images, Targets((16, 16), labels=labels))
        assert torch.equal(asked(distillation)[0].labels, labels)
        with pytest.raises(ValueError, match="asks for boxes, and the batches of this training"):
            _ = asked(distillation)[0].boxes
        student(images)
        with pytest.raises(ValueError, match=r"^distill terms\.one: Asking needs what the images"):
            distillation.loss(images)


# Other people's models ----------------------------------------------------------------------


def faster_rcnn(classes: int = 3, **settings: Any) -> nn.Module:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

    small = dict(min_size=64, max_size=96, rpn_pre_nms_top_n_train=50, box_batch_size_per_image=16)
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        return fasterrcnn_mobilenet_v3_large_fpn(
            weights=None, weights_backbone=None, num_classes=classes, **small, **settings
        )


def photos() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, h, w, generator=generator) for h, w in ((40, 60), (48, 32))]
    boxes = [[[6.0, 4.0, 30.0, 20.0]], [[2.0, 3.0, 20.0, 40.0], [8.0, 8.0, 16.0, 24.0]]]
    return images, [
        dict(boxes=torch.tensor(each), labels=torch.ones(len(each), dtype=torch.long))
        for each in boxes
    ]


BODY = dict(body=dict(student="backbone.body", teacher="backbone.body"))


def seen(module: nn.Module) -> list[Tensor]:
    found: list[Tensor] = []
    module.register_forward_pre_hook(lambda m, args: found.append(args[0].clone()))
    return found


def test_torchvision_s_teacher_sees_what_the_student_s_backbone_saw() -> None:
    student, teacher = faster_rcnn(), faster_rcnn(5)
    images, targets = photos()
    keys = list(student.state_dict())
    with distill(student, teacher, BODY) as distillation:
        model = distillation.teachers["teacher"].model
        ours, theirs = seen(student.backbone), seen(model.backbone)
        losses = student(images, targets)
        total = sum(losses.values()) + distillation.loss(images)
        total.backward()
    assert len(ours) == len(theirs) == 1
    assert torch.equal(ours[0], theirs[0])
    # Resized and padded inside: no image has this shape.
    assert ours[0].shape == (2, 3, 96, 96)
    assert list(student.state_dict()) == keys
    assert next(distillation.parameters()).grad.any()


def test_torchvision_s_normalisations_are_converted() -> None:
    student = faster_rcnn()
    teacher = faster_rcnn(5, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.4, 0.2])
    images, targets = photos()
    with distill(student, teacher, BODY) as distillation:
        model = distillation.teachers["teacher"].model
        theirs = seen(model.backbone)
        student(images, targets)
        distillation.loss(images)
    own = teacher.transform(images)[0].tensors
    torch.testing.assert_close(theirs[0], own, rtol=1e-4, atol=1e-4)
    padding = student.transform(images)[0].image_sizes
    assert padding != [(96, 96)] * 2 and not theirs[0][1, :, :, padding[1][1] :].any()


def test_torchvision_s_boxes_meet_the_batch() -> None:
    """In pixels of the padded batch, so that a box covers what is bright in it."""
    student = faster_rcnn()
    term = dict(BODY["body"], loss=dict(type="Asking"))
    images, targets = photos()
    for image, target in zip(images, targets, strict=True):
        image.zero_()
        x1, y1, x2, y2 = target["boxes"][0].int().tolist()
        image[:, y1:y2, x1:x2] = 1
    with distill(student, faster_rcnn(5), dict(one=term)) as distillation:
        batches = seen(student.backbone)
        student(images, targets)
        distillation.loss(images)
    (told,) = asked(distillation)
    assert told.size == tuple(batches[0].shape[2:]) == (96, 96)
    for image, boxes in zip(batches[0], told.boxes, strict=True):
        # Normalised, black is below 0 and padding is 0.
        bright = (image[0] > 1).nonzero()
        (top, left), (bottom, right) = bright.amin(dim=0), bright.amax(dim=0) + 1
        found = torch.tensor([left, top, right, bottom]).float()
        torch.testing.assert_close(boxes.corners[0], found, rtol=0, atol=1.5)
        assert boxes.classes.tolist() == [0] * len(boxes.corners)


def test_a_timm_classifier() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = timm.create_model("resnet10t", num_classes=4)
        teacher = timm.create_model("resnet14t", num_classes=4)
    terms = dict(
        feature=dict(student="layer4", teacher="layer4", view="global"),
        kd=dict(student="fc", teacher="fc", loss=dict(type="mmkd.KDLoss")),
    )
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    distillation = distill(student, teacher, terms, probe_size=64)
    optimizer = plain_loops.optimizer(student, distillation)
    student.train()
    with distillation:
        loss = cross_entropy(student(images), torch.arange(4)) + distillation.loss(images)
        loss.backward()
        optimizer.step()
    assert {name: each.distance > 0 for name, each in distillation.measured.items()} == dict(
        feature=True, kd=True
    )
    with pytest.raises(
        ValueError, match=r"terms\.x\.student: ResNet has no module 'layer5'. Close"
    ):
        distill(student, teacher, dict(x=dict(student="layer5", teacher="layer4")))


def detr(width: int, seed: int) -> nn.Module:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    body = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, width],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )
    size = dict(d_model=16, num_queries=5, encoder_layers=1, decoder_layers=1)
    for side in ("encoder", "decoder"):
        size |= {f"{side}_attention_heads": 2, f"{side}_ffn_dim": 16}
    config = DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=body,
        num_labels=3,
        **size,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DetrForObjectDetection(config)


def test_a_hugging_face_detector() -> None:
    """Its forward pass returns an object, and names its inputs in its own way."""
    student, teacher = detr(24, 0), detr(32, 1)
    # Where it lies differs between releases.
    (stage,) = (name for name, _ in student.named_modules() if name.endswith("encoder.stages.3"))
    terms = dict(
        stage=dict(student=stage, teacher=stage),
        # Tokens [N, L, C] of the encoder.
        encoder=dict(student="model.encoder.layers.0", teacher="model.encoder.layers.0"),
    )
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = [dict(class_labels=torch.tensor([0]), boxes=torch.tensor([[0.5, 0.5, 0.2, 0.4]]))] * 2
    # Built from a config, its backbone comes frozen.
    student.requires_grad_(True)
    distillation = distill(student, teacher, terms)
    optimizer = plain_loops.optimizer(student, distillation)
    student.train()
    with distillation:
        for _ in range(2):
            loss = student(pixel_values=images, labels=labels).loss + distillation.loss(images)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.isfinite(loss)
    assert list(distillation.measured) == ["stage", "encoder"]


# Several processes --------------------------------------------------------------------------


def test_two_processes_are_one_on_the_joined_batch(tmp_path: Path) -> None:
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", *launch, plain_loops.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    for moment in ("initial", "final"):
        assert same(first[moment], second[moment])
    assert not same(first["initial"], first["final"])
    joined = plain_loops.joined()
    assert joined.keys() == first["final"].keys()
    for name, value in joined.items():
        torch.testing.assert_close(value, first["final"][name], rtol=1e-4, atol=1e-6)


# What loops do between a forward pass and its loss --------------------------------------------


def test_two_distillations_of_one_student() -> None:
    student, teachers = net(4), [net(6, seed=1), net(5, seed=2)]
    with (
        distill(student, teachers[0], dict(one=dict())) as first,
        distill(student, teachers[1], dict(one=dict())) as second,
    ):
        parameters = [*student.parameters(), *first.parameters(), *second.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        for index in range(3):
            images, labels = batch(index)
            loss = cross_entropy(student(images), labels)
            (loss + first.loss(images) + second.loss(images)).backward()
            optimizer.step()
    assert first.iteration == second.iteration == 3


def test_a_forward_pass_that_failed_is_tried_again() -> None:
    student = net(4)
    images, _ = batch()
    with distill(student, net(6, seed=1), TERMS) as distillation:
        for broken in (torch.zeros(4, 3), torch.zeros(2, 5, 16, 16)):
            with pytest.raises(RuntimeError):
                student(broken)
            student(images)
            assert distillation.loss(images) > 0


def test_other_forward_passes_may_come_before_the_loss() -> None:
    student = net(4)
    images, other = batch(0)[0], batch(1)[0]
    with distill(student, net(6, seed=1), TERMS) as distillation:
        student(images)
        expected = distillation.loss(images)
        student(images)
        with torch.no_grad():
            student(other)
        student.eval()
        with torch.inference_mode():
            student(other)
        assert torch.equal(distillation.loss(images), expected)


def test_a_validation_of_torchvision_s_may_come_before_the_loss() -> None:
    student = faster_rcnn()
    images, targets = photos()
    with distill(student, faster_rcnn(5), BODY) as distillation:
        theirs = seen(distillation.teachers["teacher"].model.backbone)
        ours = seen(student.backbone)
        student(images, targets)
        with torch.no_grad():
            student.eval()(images[:1])
        distillation.loss(images)
    assert torch.equal(theirs[0], ours[0])
    assert distillation._batch is None


def test_copies_of_the_student_are_not_listened_to(tmp_path: Path) -> None:
    """A moving average, and a student that is saved whole."""
    student = net(4)
    images, _ = batch()
    with distill(student, net(6, seed=1), TERMS) as distillation:
        average = torch.optim.swa_utils.AveragedModel(student)
        student(images)
        average.eval()(images)
        average.train()(images)
        expected = distillation.loss(images)
        torch.save(student, tmp_path / "student.pt")
    loaded = torch.load(tmp_path / "student.pt", weights_only=False)
    assert torch.equal(loaded.train()(images), student(images))
    assert same(weights(loaded), weights(student))
    assert expected > 0
    # Nothing of the teacher came along.
    assert b"FrozenTeacher" not in (tmp_path / "student.pt").read_bytes()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_loss_outside_of_the_forward_pass_s_autocast(dtype: torch.dtype) -> None:
    student = net(4)
    images, _ = batch()
    with distill(student, net(6, seed=1), TERMS) as distillation:
        student(images)
        exact = distillation.loss(images)
        with torch.autocast("cpu", dtype):
            student(images)
        loss = distillation.loss(images)
        loss.backward()
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0.05)
    assert all(torch.isfinite(parameter.grad).all() for parameter in distillation.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_student_of_another_precision(dtype: torch.dtype) -> None:
    student = net(4).to(dtype)
    images = batch()[0].to(dtype)
    with distill(student, net(6, seed=1), TERMS) as distillation:
        student(images)
        loss = distillation.loss(images)
        loss.backward()
    assert torch.isfinite(loss) and loss > 0
    assert all(torch.isfinite(p.grad).all() for p in student.backbone.parameters())


def test_several_teachers_by_name() -> None:
    student = net(4)
    teachers = dict(large=net(6, seed=1), small=net(5, seed=2))
    images, _ = batch()
    with distill(student, teachers) as distillation:
        student(images)
        distillation.loss(images)
    assert list(distillation.measured) == list(distillation.teachers) == ["large", "small"]


# Mistakes -----------------------------------------------------------------------------------


def refuse(do: Callable[[], Any], kind: type[Exception], *parts: str) -> None:
    with pytest.raises(kind) as error:
        do()
    missing = [part for part in parts if part not in str(error.value)]
    assert not missing, f"{missing} not in: {error.value}"
    assert isinstance(error.value, SettingError) and error.value.setting


def test_training_without_distillation_does_not_go_unnoticed() -> None:
    student, distillation = net(4), None
    images, _ = batch()
    distillation = distill(student, net(6, seed=1), TERMS)
    with distillation:
        student(images)
        refuse(lambda: student(images), RuntimeError, "no distillation.loss(images) followed")

    def leave() -> None:
        with distillation:
            student(images)

    refuse(leave, RuntimeError, "no distillation.loss(images) followed")
    with distillation:
        refuse(lambda: distillation.loss(images), RuntimeError, "there was none since the last")
        student(images)
        distillation.loss(images)
        refuse(lambda: distillation.loss(images), RuntimeError, "there was none since the last")
        # Neither validation nor a look without gradients is training.
        with torch.no_grad():
            student(images)
        student.eval()(images)
        student.train()


def test_an_error_of_the_loop_s_own_passes_through() -> None:
    student = net(4)
    with pytest.raises(KeyError), distill(student, net(6, seed=1), TERMS):
        student(batch()[0])
        raise KeyError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in student.modules())


def test_projectors_that_no_optimizer_has() -> None:
    student = net(4)
    distillation = distill(student, net(6, seed=1), TERMS)
    alone = torch.optim.SGD(student.parameters(), lr=0.1)
    refuse(
        lambda: trained(student, distillation, steps=2, optimizer=alone),
        RuntimeError,
        "[*student.parameters(), *distillation.parameters()]",
    )
    # An optimizer of their own is as good.
    student = net(4)
    distillation = distill(student, net(6, seed=1), TERMS)
    own = torch.optim.SGD(distillation.parameters(), lr=0.1)
    theirs = torch.optim.SGD(student.parameters(), lr=0.1)
    with distillation:
        for index in range(3):
            images, _ = batch(index)
            student(images)
            distillation.loss(images).backward()
            theirs.step()
            own.step()


@pytest.mark.parametrize(
    ("settings", "kind", "parts"),
    [
        (dict(teacher=3), TypeError, ("distill teacher", "dict(module=...)", "got 3")),
        (dict(terms=dict(x=dict(lvl=1))), ValueError, ("distill terms.x", "'lvl'", "'level'")),
        (
            dict(terms=dict(x=dict(schedule=dict(end=3)))),
            ValueError,
            ("distill terms.x.schedule", "give iterations_per_epoch", "by_epoch=False"),
        ),
        (dict(images=dict(men=[0, 0, 0])), ValueError, ("distill images", "'men'", "'mean'")),
        (
            dict(teacher=dict(module=net(6), mean=[1, 2, 3])),
            ValueError,
            ("distill teacher", "give images=dict(mean=..., std=..., order='rgb')"),
        ),
        (
            dict(probe_size=-4),
            ValueError,
            ("distill probe_size", "1 or more, or (height, width), got -4"),
        ),
        (dict(probe_size="x"), ValueError, ("distill probe_size", "got 'x'")),
        (dict(images=3), TypeError, ("distill images", "got 3")),
        (dict(iterations_per_epoch=0), ValueError, ("distill iterations_per_epoch", "got 0")),
        (dict(student=None), TypeError, ("distill student", "expected a torch module, got None")),
        (dict(student=nn.Tanh()), ValueError, ("distill student", "no parameters to train")),
        (dict(terms=dict(x=dict(schedule=3))), TypeError, ("distill terms.x.schedule", "got 3")),
        (dict(terms={1: dict()}), TypeError, ("distill terms.1", "must be text, got 1")),
        (dict(terms=dict(x=dict(teacher="neck"))), ValueError, ("terms.x.teacher", "'neck'")),
    ],
)
def test_settings(settings: dict, kind: type[Exception], parts: tuple[str, ...]) -> None:
    given = {"student": net(4), "teacher": net(6, seed=1), **settings}
    refuse(lambda: distill(**given), kind, *parts)


def test_a_block_is_entered_once_at_a_time() -> None:
    distillation = distill(net(4), net(6, seed=1), TERMS)
    with distillation:
        refuse(distillation.__enter__, RuntimeError, "was entered already")
    with distillation:
        pass
    refuse(lambda: distillation.load_state_dict({}), ValueError, "takes what state_dict() has")


def test_a_list_of_images_for_a_student_that_takes_a_batch() -> None:
    student = net(4)
    with distill(student, net(6, seed=1), TERMS) as distillation:
        images, _ = batch()
        student(images)
        with pytest.raises(ValueError, match=r"images must be \[N, 3, H, W\], got a list"):
            distillation.loss(list(images))


def test_images_of_another_normalisation() -> None:
    """Said on both sides, they are converted."""
    student, teacher = net(4), net(6, seed=1)
    given = dict(module=teacher, mean=[10.0, 20.0, 30.0], std=[5.0, 5.0, 5.0])
    images, _ = batch()
    unit = dict(mean=[0, 0, 0], std=[255.0, 255.0, 255.0], order="bgr")
    with distill(student, given, TERMS, images=unit) as distillation:
        (model,) = (each.model for each in distillation.teachers.values())
        theirs = seen(model)
        student(images)
        distillation.loss(images)
    expected = (images[:, [2, 1, 0]] * 255 - torch.tensor([10.0, 20, 30]).view(3, 1, 1)) / 5
    torch.testing.assert_close(theirs[0], expected, rtol=1e-4, atol=1e-4)


def test_introductions_tell_the_teacher(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="mmkd"):
        distillation = distill(net(4), net(6, seed=1), TERMS)
    (text,) = (each.introduction for each in distillation.teachers.values())
    assert caplog.messages == [text]
    assert text.startswith("distill teacher: Net, a module from memory; input as the student sees")
    assert json.dumps([str(term.student[0]) for term in distillation.terms]) == (
        '["backbone[-1]", "backbone.0[-1]"]'
    )


def test_a_loop_is_told_of_terms_that_need_two_images(caplog: pytest.LogCaptureFixture) -> None:
    terms = dict(pooled=dict(view="global"), dense=dict())
    with caplog.at_level("INFO", logger="mmkd"):
        distill(net(4), net(6, seed=1), terms)
    (told,) = (each for each in caplog.messages if "drop_last" in each)
    assert told.startswith("distill terms.pooled: it takes one sample an image")


# Looked at ------------------------------------------------------------------------------------


def test_dynamics_change_nothing_and_are_those_of_the_features() -> None:
    student, teacher = net(4, dropout=0.3), net(6, seed=1)
    images, _ = batch(seed=5, size=8)
    twin = copy.deepcopy(student)
    with distill(student, teacher, TERMS, seed=3) as distillation:
        losses = []
        torch.manual_seed(0)
        for index in range(3):
            student(batch(index)[0])
            losses.append(float(distillation.loss(batch(index)[0])))
            found = distillation.dynamics(images)
        assert student.training
    with distill(twin, net(6, seed=1), TERMS, seed=3) as other:
        torch.manual_seed(0)
        for index in range(3):
            twin(batch(index)[0])
            assert float(other.loss(batch(index)[0])) == losses[index]
    assert list(found) == ["last", "first"]
    with torch.no_grad():
        sides = (student.backbone(images), teacher.backbone(images))
    expected = linear_cka(*pair_as_samples(*sides, "dense"))
    assert found["last"]["cka"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(SettingError, match=r"images must be \[N, 3, H, W\], got a list"):
        distillation.dynamics([images])


def test_dynamics_of_a_torchvision_detector() -> None:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn as detector

    torch.manual_seed(0)
    student, teacher = (detector(weights=None, weights_backbone=None) for _ in range(2))
    term = dict(student="backbone", teacher="backbone", level="0")
    distillation = distill(student, teacher, dict(a=term), probe_size=64)
    images = [torch.rand(3, 64, 96), torch.rand(3, 80, 60)]
    found = distillation.dynamics(images)
    assert -1 <= found["a"]["cka"] <= 1 and "cosine_inside" not in found["a"]
    # Boxes in pixels of the images.
    corners = [[[0.0, 0.0, 48.0, 32.0]], [[0.0, 0.0, 60.0, 80.0]]]
    targets = [dict(boxes=torch.tensor(c), labels=torch.tensor([1])) for c in corners]
    held_out = distillation.dynamics(images, targets, held_out=True)["a"]
    assert held_out["cka"] == found["a"]["cka"]
    assert "effective_rank" in found["a"] and "effective_rank" not in held_out
    with evaluation_mode(student), torch.no_grad():
        inputs, moved = student.transform(images, targets)
        ours = student.backbone(inputs.tensors)["0"]
    frozen = distillation._distillation.teachers["teacher"]
    theirs = frozen.features(inputs.tensors, list(inputs.image_sizes))["backbone"]["0"]
    mask = torch.stack([object_cells(t["boxes"], ours.shape[2:], inputs.tensors.shape[2:])
                        for t in moved])  # fmt: skip
    projected = distillation._distillation.distillers["a"].projector(ours)
    normalized = [
        (side - side.mean(dim=(0, 2, 3), keepdim=True))
        / side.std(dim=(0, 2, 3), correction=0, keepdim=True)
        for side in (projected.detach().double(), theirs.double())
    ]
    expected = torch.nn.functional.cosine_similarity(*normalized, dim=1)[mask].mean()
    assert held_out["cosine_inside"] == pytest.approx(float(expected), rel=1e-3)


def test_dynamics_of_blocks_and_of_other_targets() -> None:
    student, teacher = net(4), net(6, seed=1)
    distillation = distill(student, teacher, TERMS)
    images, _ = batch(seed=5, size=8)
    found = distillation.dynamics(images, blocks=["backbone"])
    assert found["backbone"]["equivariance"] > 0 and found["last"]["cka"]
    with pytest.raises(SettingError, match=r"targets must be mmkd\.targets\.Targets, got a list"):
        distillation.dynamics(images, [dict()])
