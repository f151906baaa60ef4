"""What distillation does to a run of Ultralytics' trainer, and what it leaves alone."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.engine import trainer as trainer_module
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.callbacks import get_default_callbacks

from helpers.toy import differences
from helpers.yolo_toy import (
    TAP,
    TERM,
    Callbacks,
    Stopped,
    YOLOToy,
    attached,
    distil,
    end_of,
    network,
    on_student,
    out_of_memory,
    plain,
    read_checkpoint,
    read_results,
    stop_at,
    train,
)
from mmkd.engine.ultralytics import DistillCallback, DistillTrainer


@pytest.fixture(scope="module", autouse=True)
def bfloat16_on_cpu() -> Iterator[None]:
    """Ultralytics wants CUDA for mixed precision, which the CPU's autocast does as well."""

    def autocast(enabled: Any, device: str = "cuda") -> torch.autocast:
        return torch.autocast(device, dtype=torch.bfloat16, enabled=bool(enabled))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "autocast", autocast)
        yield


def nan_once() -> Callbacks:
    """Makes the loss of the last batch of the second epoch NaN, once."""
    left = [1]

    def spoil(trainer: Any) -> None:
        if trainer.epoch == 1 and left:
            trainer.loss.fill_(torch.nan)
            for parameter in network(trainer).parameters():
                parameter.data.fill_(torch.nan)
            left.pop()

    return dict(on_train_epoch_end=spoil)


# Weight 0 ---------------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = dict(
    mosaic=1.0,
    close_mosaic=1,
    mixup=0.5,
    multi_scale=0.5,
    nbs=12,
    cls_pw=0.5,
    cos_lr=True,
    fraction=0.875,
    freeze=3,
)
KINDS: dict[str, dict[str, Any]] = {
    "augmentations, accumulation, class weights": EVERYTHING,
    "AdamW in bfloat16, without validation": dict(optimizer="AdamW", amp="bf16", val=False),
    "MuSGD": dict(optimizer="MuSGD"),
    "out of memory": dict(on=lambda: on_student(out_of_memory(2))),
    "NaN": dict(on=nan_once),
}


class Events:
    """Callbacks that note every event of a training."""

    def __init__(self, more: Callbacks) -> None:
        self.seen: list[tuple[str, int]] = []
        self.callbacks: Callbacks = {
            event: self._note(event, more.get(event)) for event in get_default_callbacks()
        }

    def _note(self, event: str, more: Callable[[Any], None] | None) -> Callable[[Any], None]:
        def note(trainer: Any) -> None:
            self.seen.append((event, getattr(trainer, "epoch", -1)))
            if more:
                more(trainer)

        return note


@pytest.mark.parametrize("kind", KINDS)
def test_weight_zero_ends_in_the_bits_of_a_plain_run(toy: YOLOToy, kind: str) -> None:
    settings = dict(KINDS[kind])
    make = settings.pop("on", dict)
    events, plain_events = Events(make()), Events(make())
    terms = {
        TERM: dict(weight=0.0),
        "connector": dict(weight=0.0, projector=dict(type="mmkd.ConvConnector")),
        "balanced": dict(weight=dict(share=0.0)),
    }
    expected = end_of(plain(toy, on=plain_events.callbacks, **settings))
    ended = end_of(distil(toy, terms, on=events.callbacks, **settings))
    for key in ("weights", "ema", "updates", "last", "best", "random_state"):
        assert differences(expected[key], ended[key]) == [], key
    shared = {name: ended["results"][name] for name in expected["results"]}
    assert differences(expected["results"], shared) == []
    groups = expected["optimizer"]["param_groups"]
    assert differences(groups, ended["optimizer"]["param_groups"][: len(groups)]) == []
    assert differences(expected["optimizer"]["state"], ended["optimizer"]["state"]) == []
    # The user's callbacks are called when they are called in a plain run.
    assert plain_events.seen == events.seen


# The teacher and the student ----------------------------------------------------------------


class Watch:
    """What happens to teacher and student in a distilled run with every augmentation."""

    def __init__(self, toy: YOLOToy, **settings: Any) -> None:
        self.batches: list[Tensor] = []
        self.inputs: list[Tensor] = []
        self.features: list[Tensor] = []
        self.modes: set[bool] = set()
        self.calls: Counter[str] = Counter()
        self.sizes: set[int] = set()
        self.initial: dict[str, Tensor] = {}
        self.trainer = train(
            toy, attached(toy, terms={TERM: dict(teacher="model.3")}), on=self._on(), **settings
        )

    def _on(self) -> Callbacks:
        return dict(on_train_start=self._start)

    def _start(self, trainer: Any) -> None:
        self.teacher = trainer.distillation.teachers["teacher"].model
        self.before = copy.deepcopy(self.teacher.state_dict())
        self.initial = copy.deepcopy(network(trainer).state_dict())
        for name, module in self.teacher.named_modules():
            module.register_forward_pre_hook(lambda m, args, name=name: self._enter(name, m, args))
        self.teacher.get_submodule("model.3").register_forward_hook(self._leave, prepend=True)
        network(trainer).model[0].register_forward_pre_hook(self._student)

    def _enter(self, name: str, module: nn.Module, args: Any) -> None:
        self.calls[name] += 1
        self.modes.add(module.training)
        if name == "model.0":
            self.inputs.append(args[0].clone())

    def _leave(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.features.append(output)

    def _student(self, module: nn.Module, args: Any) -> None:
        if module.training:
            self.batches.append(args[0].clone())


@pytest.fixture(scope="module")
def watch(toy: YOLOToy) -> Watch:
    return Watch(toy, **EVERYTHING)


@pytest.fixture(scope="module")
def bfloat16(toy: YOLOToy) -> Watch:
    return Watch(toy, amp="bf16")


def test_the_teacher_sees_the_batches_of_the_student(watch: Watch) -> None:
    assert len(watch.batches) == 2 * 4
    assert differences(watch.batches, watch.inputs) == []
    # Several scales, a smaller last batch, and no image twice: augmented anew each time.
    assert {batch.shape[2] for batch in watch.batches} > {64}
    assert {len(batch) for batch in watch.batches} == {4, 2}
    images = [image for batch in watch.batches for image in batch]
    assert len({image.sum().item() for image in images}) == len(images)


def test_the_teacher_runs_to_its_deepest_tap(watch: Watch) -> None:
    called = {name.split(".")[1] for name in watch.calls if "." in name}
    assert called == {"0", "1", "2", "3"}
    assert watch.calls["model.3"] == 2 * 4


def test_the_teacher_stays_as_it_was(watch: Watch) -> None:
    assert watch.modes == {False}
    assert differences(watch.before, watch.teacher.state_dict()) == []
    assert all(p.grad is None and not p.requires_grad for p in watch.teacher.parameters())
    assert not any(feature.requires_grad for feature in watch.features)
    trained = {id(p) for g in watch.trainer.optimizer.param_groups for p in g["params"]}
    assert not trained & {id(p) for p in watch.teacher.parameters()}


def test_in_mixed_precision_the_teacher_runs_in_it(watch: Watch, bfloat16: Watch) -> None:
    assert {feature.dtype for feature in watch.features} == {torch.float32}
    assert {feature.dtype for feature in bfloat16.features} == {torch.bfloat16}
    assert {p.dtype for p in bfloat16.teacher.parameters()} == {torch.bfloat16}
    # The student's own weights, and the projector's, stay in float32.
    assert {p.dtype for p in network(bfloat16.trainer).parameters()} == {torch.float32}
    distillers = bfloat16.trainer.distillation.distillers
    assert {p.dtype for p in distillers.parameters()} == {torch.float32}


def test_a_bfloat16_teacher_gives_the_distances_of_a_float32_one(
    toy: YOLOToy, bfloat16: Watch
) -> None:
    rounded = read_results(bfloat16.trainer)["train/kd_loss"]
    exact = read_results(distil(toy, {TERM: dict(teacher="model.3")}))["train/kd_loss"]
    assert rounded == pytest.approx(exact, rel=0.01)
    assert rounded != exact


def test_frozen_layers_keep_their_bits(watch: Watch) -> None:
    weights = network(watch.trainer).state_dict()
    changed = {name.partition(" ")[0] for name in differences(watch.initial, weights)}
    assert not any(name.startswith((".model.0.", ".model.1.", ".model.2.")) for name in changed)
    assert {name.split(".")[2] for name in changed} == {"3", "4", "7", "8"}


def test_a_frozen_tap_is_an_error(toy: YOLOToy) -> None:
    message = f"DistillCallback terms.{TERM}: the student's feature '{TAP}' has no gradient"
    with pytest.raises(RuntimeError, match=message):
        distil(toy, freeze=5)


def test_no_trace_is_left_on_the_student(watch: Watch) -> None:
    student = network(watch.trainer)
    hooks = {n: m for n, m in student.named_modules() if m._forward_hooks}
    assert hooks == {}
    assert "loss" not in vars(student)


def test_no_trace_is_left_after_an_error(toy: YOLOToy) -> None:
    """A model that came with weights is itself what is trained, and the user has it back."""
    model = YOLO(toy.teacher)
    with pytest.raises(Stopped):
        train(toy, attached(toy, model), on=stop_at(1))
    assert network(model.trainer) is model.model
    assert [n for n, m in model.model.named_modules() if m._forward_hooks] == []
    assert "loss" not in vars(model.model)
    assert b"mmkd" not in pickle.dumps(model.model)


# The weight -------------------------------------------------------------------------------


class OneBatch:
    """The distilled loss of one batch at the start of a training, and its gradients.

    Attributes:
        loss: The vector that the trainer sums.
        items: What it logs.
        task, distilled: Gradients of the task's part and of the distilled part by the weights
            of the student's first convolution.
        student, images: The tapped feature, and what it was computed from.
        projector: The state of the term's projector.
    """

    def __init__(self, toy: YOLOToy, repeats: int, weight: float) -> None:
        self._repeats = repeats
        model = attached(toy, terms={TERM: dict(weight=weight)})
        with pytest.raises(Stopped):
            train(toy, model, on=dict(on_train_batch_start=self._measure), mosaic=0.0)

    def _measure(self, trainer: Any) -> None:
        batch = trainer.preprocess_batch(next(iter(trainer.train_loader)))
        size = len(batch["img"])
        repeated = {
            key: torch.cat([batch[key]] * self._repeats) for key in ("img", "cls", "bboxes")
        }
        repeated["batch_idx"] = torch.cat(
            [batch["batch_idx"] + size * copy for copy in range(self._repeats)]
        )
        student = network(trainer)
        for branch in student.model[-1].cv2:
            # Boxes of two cells fit some digits, as a trained model's do. Where hardly any fits,
            # the task's loss grows with the square of the number of images.
            branch[-1].bias.data.view(4, 16)[:, 1] = 8.0
        student.get_submodule(TAP).register_forward_hook(self._keep)
        trainer.distillation.begin(0, 4)
        trainer.distillation.arm()
        self.loss, self.items = student(repeated)
        first = student.model[0].conv.weight
        self.task, self.distilled = (
            torch.autograd.grad(part.sum(), first, retain_graph=True)[0]
            for part in (self.loss[:3], self.loss[3:])
        )
        self.images = repeated["img"]
        self.projector = trainer.distillation.distillers[TERM].projector.state_dict()
        raise Stopped

    def _keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.student = output.detach()


def distance_by_hand(student: Tensor, teacher: Tensor, projector: Mapping[str, Tensor]) -> float:
    """LogSum(4) of batch-normalised samples, the student's projected, in float64."""

    def normalized(map: Tensor, project: bool) -> Tensor:
        samples = map.double().permute(0, 2, 3, 1).reshape(-1, map.shape[1])
        if project:
            weight, bias = (projector[f"linear.{name}"].double() for name in ("weight", "bias"))
            samples = samples @ weight.T + bias
        centred = samples - samples.mean(0)
        return centred / (centred.square().mean(0) + 1e-4).sqrt()

    difference = normalized(student, True) - normalized(teacher, False)
    return difference.abs().pow(4).sum().log().item()


@pytest.fixture(scope="module")
def batches(toy: YOLOToy) -> tuple[OneBatch, OneBatch]:
    """Four images, and the same twice over."""
    return OneBatch(toy, 1, weight=0.7), OneBatch(toy, 2, weight=0.7)


def test_the_loss_is_the_weighted_distance_times_the_batch_size(
    toy: YOLOToy, batches: tuple[OneBatch, OneBatch]
) -> None:
    teacher = YOLO(toy.teacher).model.eval()
    features: list[Tensor] = []
    teacher.get_submodule(TAP).register_forward_hook(lambda m, a, output: features.append(output))
    for batch in batches:
        with torch.no_grad():
            teacher(batch.images)
        expected = 0.7 * distance_by_hand(batch.student, features.pop(), batch.projector)
        # The last entry; the first are the task's three losses, multiplied in the same way.
        assert batch.loss[3:].tolist() == pytest.approx([expected * len(batch.images)], rel=1e-4)
        assert list(batch.items) == ["box_loss", "cls_loss", "dfl_loss", "kd_loss"]
        logged = torch.stack([batch.items[name] for name in batch.items]) * len(batch.images)
        assert torch.allclose(logged, batch.loss.detach(), rtol=1e-5)


def test_the_weight_means_the_same_at_any_batch_size(
    batches: tuple[OneBatch, OneBatch],
) -> None:
    single, double = batches
    assert single.task.abs().max() > 0
    # Everything but LogSum's own sum over twice the samples is the same.
    grown = 4 * 0.7 * torch.tensor(2.0).log()
    assert torch.allclose(double.loss[3:] / 2, single.loss[3:] + grown, rtol=1e-4)
    for name in ("task", "distilled"):
        one, two = getattr(single, name), getattr(double, name)
        assert torch.allclose(2 * one, two, rtol=1e-3, atol=1e-4 * one.abs().max().item()), name


def norms_of_a_batch(toy: YOLOToy, weight: Any) -> dict[str, float]:
    """Of the gradients at the tapped feature in a training's first batch; what is told of them."""
    found: dict[str, float] = {}

    def measure(trainer: Any) -> None:
        batch = trainer.preprocess_batch(next(iter(trainer.train_loader)))
        features: list[Tensor] = []
        student, distillation = network(trainer), trainer.distillation
        student.get_submodule(TAP).register_forward_hook(lambda m, a, out: features.append(out))
        distillation.begin(0, 4)
        loss, _ = student(batch)
        loss.sum().backward(retain_graph=True)
        found["share"] = float(distillation.shares[TERM])
        found["weight"] = float(distillation.distillers[TERM].weight)
        for name, part in (("task", loss[:3]), ("term", loss[3:])):
            [gradient] = torch.autograd.grad(part.sum(), features, retain_graph=True)
            found[name] = gradient.norm().item()
        raise Stopped

    with pytest.raises(Stopped):
        on = dict(on_train_batch_start=measure)
        train(toy, attached(toy, terms={TERM: dict(weight=weight)}), on=on, mosaic=0.0)
    return found


def test_weight_and_share_by_hand(toy: YOLOToy) -> None:
    fixed, balanced = (norms_of_a_batch(toy, weight) for weight in (0.7, dict(share=0.3)))
    expected = fixed["term"] / (fixed["task"] + fixed["term"])
    assert fixed["share"] == pytest.approx(expected, rel=1e-4)
    # In its first batch, a term is only looked at.
    assert balanced["term"] == balanced["share"] == 0
    assert balanced["task"] == pytest.approx(fixed["task"], rel=1e-5)
    ratio = fixed["task"] / (fixed["term"] / 0.7)
    assert balanced["weight"] == pytest.approx(0.3 / 0.7 * ratio, rel=1e-4)


@pytest.mark.parametrize("settings", [dict(), dict(amp="bf16"), dict(nbs=12)])
def test_the_share_is_reached(toy: YOLOToy, settings: dict[str, Any]) -> None:
    terms = {TERM: dict(weight=dict(share=0.3)), "neck": dict(student="model.7", teacher="model.7")}
    results = read_results(distil(toy, terms, epochs=6, **settings))
    shares, weights = (results[f"distill/{kind}_{TERM}"] for kind in ("share", "weight"))
    # One of the first epoch's four batches was only looked at.
    assert shares[0] < 0.3
    assert sum(shares[2:]) / 4 == pytest.approx(0.3, rel=0.2)
    assert len(set(weights)) == 6
    assert results["distill/weight_neck"] == [1.0] * 6


# What goes wrong in a training --------------------------------------------------------------


class Memory:
    """Runs out of memory once, in the second batch; what is held when the epoch begins again."""

    def __init__(self) -> None:
        self.features: list[weakref.ref] = []
        self.held: list[Any] = []
        self.iterations: list[int] = []

    def start(self, trainer: Any) -> None:
        student = network(trainer)
        for branch in student.model[-1].cv2:
            # Boxes of two cells fit some digits, as a trained model's do. Where hardly any fits,
            # the task's loss grows with the square of the number of images.
            branch[-1].bias.data.view(4, 16)[:, 1] = 8.0
        student.get_submodule(TAP).register_forward_hook(self._keep)
        begin = trainer.distillation.begin

        def noting_begin(iteration: int, length: int) -> None:
            self.iterations.append(iteration)
            begin(iteration, length)

        trainer.distillation.begin = noting_begin

    def _keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if module.training:
            self.features.append(weakref.ref(output))

    def epoch(self, trainer: Any) -> None:
        gc.collect()
        self.held += [ref() for ref in self.features if ref() is not None]
        self.held += list(trainer.distillation._taps._calls)


@pytest.mark.parametrize("where", ["student", "teacher"])
def test_out_of_memory_halves_the_batch(toy: YOLOToy, where: str) -> None:
    memory = Memory()
    failing = out_of_memory(2)

    def start(trainer: Any) -> None:
        memory.start(trainer)
        if where == "student":
            network(trainer).model[-1].register_forward_hook(failing)
        else:
            teacher = trainer.distillation.teachers["teacher"].model
            module = teacher.get_submodule("model.0")
            # A teacher is never in training mode.
            module.register_forward_hook(lambda m, a, o: failing(nn.Identity(), a, o))

    trainer = distil(toy, on=dict(on_train_start=start, on_train_epoch_start=memory.epoch))
    assert trainer.batch_size == 2
    assert memory.held == []
    # Two batches of four, then both epochs have eight batches of two.
    assert memory.iterations == [0, 1, *range(16)]
    results = read_results(trainer)
    assert results["epoch"] == [1, 2]
    assert all(value > 0 for value in results["train/kd_loss"])


def test_recovery_from_nan_puts_the_projectors_back(toy: YOLOToy) -> None:
    kept: list[dict[str, Any]] = []
    begun: list[int] = []

    def state(trainer: Any) -> dict[str, Any]:
        optimizer = trainer.optimizer.state_dict()
        own = {i for group in optimizer["param_groups"][-2:] for i in group["params"]}
        return copy.deepcopy(
            dict(
                distillers=trainer.distillation.distillers.state_dict(),
                momenta={i: s for i, s in optimizer["state"].items() if i in own},
            )
        )

    def keep(trainer: Any) -> None:
        begun.append(trainer.epoch)
        if trainer.epoch == 1:
            kept.append(state(trainer))

    trainer = distil(toy, on=dict(on_train_epoch_start=keep, **nan_once()))
    assert begun == [0, 1, 1]
    before, after = kept
    assert len(before["momenta"]) == 2
    assert differences(before, after) == []
    results = read_results(trainer)
    assert results["epoch"] == [1, 2]
    assert all(value > 0 for value in results["train/kd_loss"])
    # The trainer made a new average by copying the student in the middle of the training.
    assert b"mmkd" not in pickle.dumps(trainer.ema.ema)
    finite = [v for v in network(trainer).state_dict().values() if v.is_floating_point()]
    assert all(torch.isfinite(value).all() for value in finite)


# Trainers, callbacks, models of the user's ----------------------------------------------------


class Falling(DetectionTrainer):
    """A user's own trainer, whose fitness falls from epoch to epoch."""

    def validate(self) -> Any:
        metrics, _ = super().validate()
        fitness = 1 / (1 + self.epoch)
        self.best_fitness = max(self.best_fitness or 0, fitness)
        return metrics, fitness


def test_early_stopping_of_a_users_own_trainer(toy: YOLOToy) -> None:
    trainer = train(toy, attached(toy), trainer=Falling, patience=1, epochs=5, save_period=1)
    assert isinstance(trainer, Falling)
    assert isinstance(trainer, DistillTrainer)
    results = read_results(trainer)
    assert results["epoch"] == [1, 2]
    assert all(value > 0 for value in results["train/kd_loss"])
    # The first epoch was the best; its file, and that of each epoch, is a stock one.
    files = {name: trainer.wdir / f"{name}.pt" for name in ("best", "epoch0", "epoch1")}
    contents = {name: read_checkpoint(file) for name, file in files.items()}
    weights = contents["best"]["model"].state_dict()
    assert differences(weights, contents["epoch0"]["ema"].state_dict()) == []
    assert differences(weights, contents["epoch1"]["ema"].state_dict())
    # Ultralytics writes down the folder of the repository in which it runs, of whatever name.
    own = str(Path(__file__).parents[3]).encode()
    assert all(b"mmkd" not in file.read_bytes().replace(own, b"") for file in files.values())


def test_a_time_limit(toy: YOLOToy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trainer plans its epochs anew after each, by the clock; and its schedule with them."""
    hours = 0.0
    rates: list[tuple[list[float], list[float]]] = []

    def pass_time(trainer: Any) -> None:
        nonlocal hours
        hours += 0.1

    def compare(trainer: Any) -> None:
        groups = trainer.optimizer.param_groups
        rates.append(([g["lr"] for g in groups[-2:]], [groups[i]["lr"] for i in (0, 2)]))

    monkeypatch.setattr(trainer_module.time, "time", lambda: hours * 3600)
    on = dict(on_train_epoch_start=pass_time, on_train_batch_end=compare)
    trainer = distil(toy, time=0.25, on=on)
    assert trainer.epochs == 3
    # Time runs out at the first optimizer step of the third epoch.
    assert read_results(trainer)["epoch"] == [1, 2, 3]
    assert len(rates) == 8
    assert all(own == student for own, student in rates)
    assert rates[-1][0] == pytest.approx([0.01 * (1 - (1 - 0.01) / 3)] * 2)


def test_training_twice_and_detaching(toy: YOLOToy) -> None:
    callback = DistillCallback(str(toy.teacher), dict(backbone=dict()), probe_size=64)
    model = YOLO(toy.student)
    before = copy.deepcopy(dict(model.callbacks))
    callback.attach(model)
    first = train(toy, model, epochs=1)
    second = train(toy, model, epochs=1)
    assert second is not first
    assert second.last != first.last
    # The second begins with what the first has ended in.
    assert Path(second.args.model) == first.best
    assert [len(read_results(t)["train/kd_loss"]) for t in (first, second)] == [1, 1]
    callback.detach(model)
    assert model.callbacks == before
    assert model.train.__func__ is YOLO.train
    assert model.tune.__func__ is YOLO.tune
    third = train(toy, model, epochs=1)
    assert not isinstance(third, DistillTrainer)
    assert "train/kd_loss" not in read_results(third)
