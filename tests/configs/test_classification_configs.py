"""Every shipped CIFAR-100 and ImageNet config builds, fits together and takes a training step."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import TRANSFORMS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn

from helpers.small_scale import read
from helpers.small_scale_classification import (
    CONFIGS,
    IMAGES,
    SHIPPED,
    build,
    build_without_numbers,
    hook_of,
    one_step,
    teacher_config,
)
from mmkd import DistillHook
from mmkd.distiller import FeatureDistiller
from mmkd.features import FeatureTaps, channels_of, select
from mmkd.targets import Targets
from mmkd.terms import parse_terms

every_config = pytest.mark.parametrize(
    "path", SHIPPED, ids=[str(p.relative_to(CONFIGS)) for p in SHIPPED]
)
CIFAR = [p for p in SHIPPED if p.parent.name == "cifar100"]
IMAGENET = [p for p in SHIPPED if p.parent.name == "imagenet"]
PAIRS = [p for p in SHIPPED if p.stem.count("_") == 3]
REUSE = ("simkd", "simkd-1x1", "simkd-1x1-1x1", "ijckd", "ijckd-1x1", "ijckd-1x1-1x1")

# The terms of each method, by the last part of a config's name before its schedule.
TERMS = {
    "logsum-rotation": {"feature"},
    "logsum-randaugment": {"feature"},
    "ensemble": {"feature"},
    "ensemble-gelu": {"feature"},
    "ensemble-linear": {"feature"},
    "mlp": {"feature"},
    "kd": {"kd"},
    "srrl": {"srrl"},
    "simkd": {"map"},
    "simkd-1x1": {"map"},
    "simkd-1x1-1x1": {"map"},
    "ijckd": {"map", "logits"},
    "ijckd-1x1": {"map", "logits"},
    "ijckd-1x1-1x1": {"map", "logits"},
    "ijckd-own": {"map", "logits"},
    "ijckd-joint": {"map", "joint"},
    "alignment-plain": set(),
    "alignment-kd": {"kd"},
    "mse": {"feature"},
    "mse-batch": {"feature"},
    "mse-group": {"feature"},
    "mse-none": {"feature"},
    "cosine": {"feature"},
    "hard": {"dist"},
    "soft": {"dist"},
}
WITH_KL = (
    "resnet18_resnet34-logsum",
    "deit-tiny_regnety-160-logsum",
    "deit-small_regnety-160-logsum",
)
# Parameters and width of the classified feature, with 100 and with 1,000 classes.
NETWORKS = {
    "resnet20": (278_324, 64),
    "resnet56": (861_620, 64),
    "resnet8x4": (1_233_540, 256),
    "resnet32x4": (7_433_860, 256),
    "wrn-16-2": (703_284, 128),
    "wrn-40-1": (569_780, 64),
    "wrn-40-2": (2_255_156, 128),
    "vgg8": (3_965_028, 512),
    "vgg13": (9_462_180, 512),
    "mobilenet-v2": (812_836, 1280),
    "shufflenet-v1": (949_258, 960),
    "shufflenet-v2": (1_355_528, 1024),
    "resnet50": (23_705_252, 2048),
}
IMAGENET_NETWORKS = {
    "resnet18": (11_689_512, 512),
    "resnet34": (21_797_672, 512),
    "resnet50": (25_557_032, 2048),
    "densenet201": (20_013_928, 1920),
    "mobilenet-v1": (4_231_976, 1024),
    "mobilenet-v2": (3_504_872, 1280),
    "mobilenet-v3-large": (5_483_032, 960),
    "efficientnet-b0": (5_288_548, 1280),
    "convnext-tiny": (28_589_128, 768),
    "vit-base-p16": (86_567_656, 768),
    "regnety-160": (83_590_140, 3024),
    "deit-tiny": (5_910_800, 192),
    "deit-small": (22_436_432, 384),
}


def method(path: Path) -> str | None:
    """``'logsum-rotation'`` of ``student_teacher-logsum-rotation_1xb64_cifar100.py``."""
    if path not in PAIRS:
        return None
    teacher_and_method = path.stem.split("_")[1]
    names = (*NETWORKS, *IMAGENET_NETWORKS)
    teacher = max((n for n in names if teacher_and_method.startswith(n + "-")), key=len)
    return teacher_and_method.removeprefix(teacher + "-")


def terms_of(path: Path) -> set[str]:
    """What the hook is expected to add."""
    name = method(path)
    if name == "logsum":
        with_kl = path.stem.rpartition("_")[0].rpartition("_")[0] in WITH_KL
        return {"feature", "kl"} if with_kl else {"feature"}
    return TERMS[name] if name else set()


def test_names_tell_what_there_is() -> None:
    assert len(CIFAR) == 13 + 2 * 10 + 5 + 4 + 2 + 10 + 2
    assert len(IMAGENET) == 3 + 3 + 2 + 2 + 3 * 6 + 5 + 3
    for path in SHIPPED:
        assert terms_of(path) == set((hook_of(read(path), "DistillHook") or {}).get("terms", {}))
    for path in PAIRS:
        teacher = hook_of(read(path), "DistillHook") or {}
        name = Path(teacher.get("teacher", {}).get("config", "resnet32x4_")).name.split("_")[0]
        assert path.stem.split("_")[1].startswith(name.replace("ViT", "vit"))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_classifier_begins_as_in_crds_framework(name: str) -> None:
    """Torch's own, U(-b, b) with b = fan_in^(-1/2); without biases in wide ResNets; N(0, 0.01^2)
    without biases in VGGs and MobileNetV2."""
    head = build(read(CONFIGS / f"cifar100/{name}_1xb64_cifar100.py").model.head)
    torch.manual_seed(0)
    head.init_weights()
    weight, bias, bound = head.fc.weight, head.fc.bias, NETWORKS[name][1] ** -0.5
    is_normal = name.startswith(("vgg", "mobilenet"))
    deviation = 0.01 if is_normal else bound / math.sqrt(3)
    # Five standard errors of a normal's deviation, and more of a uniform's.
    assert weight.std().item() == pytest.approx(deviation, rel=5 / math.sqrt(2 * weight.numel()))
    assert is_normal == (weight.abs().max().item() > 3 * deviation)
    if is_normal or name.startswith("wrn"):
        assert not bias.any()
    else:
        assert 0.8 * bound < bias.abs().max().item() <= bound


# A training step ------------------------------------------------------------------------------


class Recorder(Hook):
    """The losses of the last of some steps, all weights as training begins; ends the training."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.losses: dict[str, float] = {}
        self.begin: dict[str, Tensor] = {}
        self.images = 0

    def before_train(self, runner: Runner) -> None:
        self.begin = weights(runner)
        self.handle = runner.model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.images = len(kwargs["inputs"] if "inputs" in kwargs else args[0])

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self.losses = {key: float(value) for key, value in outputs.items()}
        runner.train_loop.stop_training = runner.iter + 1 >= self.steps


def weights(runner: Runner) -> dict[str, Tensor]:
    """The student's parameters, and the projectors' under ``distill.``."""
    named = dict(runner.model.named_parameters())
    if (hook := distill_hook(runner)) is not None:
        named |= {f"distill.{k}": p for k, p in hook.distillers.named_parameters()}
    return {key: p.detach().clone() for key, p in named.items()}


def distill_hook(runner: Runner) -> DistillHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, DistillHook)), None)


@every_config
def test_takes_a_training_step(path: Path, tmp_path: Path) -> None:
    config = read(path)
    one_step(config, tmp_path, name=f"{path.parent.name}-{path.stem}")
    runner = Runner.from_cfg(config)
    # DeiT's classifiers begin at 0: in the first step nothing goes back through them.
    recorder = Recorder(steps=2 if path.stem.startswith("deit") else 1)
    runner.register_hook(recorder)
    runner.train()

    losses = recorder.losses
    assert all(math.isfinite(value) for value in losses.values()), losses
    terms = {k.removeprefix("loss_distill_") for k in losses if k.startswith("loss_distill_")}
    assert terms == terms_of(path)
    assert recorder.images == (2 if "logsum-r" in path.stem else 1) * IMAGES

    after = weights(runner)
    moved = {key for key in after if not torch.equal(after[key], recorder.begin[key])}
    assert any(key.startswith("backbone.") for key in moved)
    projectors = {key for key in after if key.startswith("distill.")}
    assert any(key in moved for key in projectors) == bool(projectors)
    if method(path) in (*REUSE, "ijckd-joint"):
        assert any(key.startswith("head.connector.") for key in moved)
    frozen = method(path) in REUSE
    assert ("head.fc.weight" in moved) == (not frozen and "head.fc.weight" in after)
    if (hook := distill_hook(runner)) is None:
        return
    (teacher,) = hook.teachers.values()
    assert "as the student sees it" in teacher.introduction
    if frozen:
        assert torch.equal(after["head.fc.weight"], teacher.model.head.fc.weight)


# At full size ---------------------------------------------------------------------------------


def table(path: Path) -> dict[str, tuple[int, int]]:
    return NETWORKS if path in CIFAR else IMAGENET_NETWORKS


@cache
def features(model: str, side: int, taps: tuple[str, ...]) -> dict[str, Any]:
    """What the named modules of a model give, at full size, of two images."""
    network = build_without_numbers(json.loads(model))
    tapped = FeatureTaps(network, taps)
    with tapped.recording(), torch.device("meta"):
        network(torch.zeros(2, 3, side, side))
    return tapped.take()


@pytest.mark.parametrize("path", [p for p in SHIPPED if p not in PAIRS], ids=lambda p: p.stem)
def test_networks_have_the_papers_sizes(path: Path) -> None:
    model = build_without_numbers(read(path).model)
    parameters, width = table(path)[path.stem.split("_")[0]]
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert read(path).model.head.in_channels == width


# Those left out differ from their neighbours in pictures alone.
@pytest.mark.parametrize(
    "path",
    [p for p in PAIRS if terms_of(p) and "randaugment" not in p.stem],
    ids=lambda p: p.stem,
)
def test_terms_fit_at_full_size(path: Path) -> None:
    config = read(path)
    hook = hook_of(config, "DistillHook")
    terms = parse_terms(hook.terms, ["teacher"])
    side, classes = (32, 100) if path in CIFAR else (224, 1000)
    student, teacher = path.stem.split("_")[:2]
    wide = table(path)[student][1]
    (narrowed,) = (w for name, (_, w) in table(path).items() if teacher == f"{name}-{method(path)}")
    reuses = method(path) in (*REUSE, "ijckd-joint")
    models = {"student": config.model, "teacher": teacher_config(config).model}
    found = {
        side_of: features(
            json.dumps(model),
            side,
            tuple(dict.fromkeys(getattr(t, side_of)[0].path for t in terms)),
        )
        for side_of, model in models.items()
    }
    generator = torch.Generator().manual_seed(0)
    for term in terms:
        (ours,), (theirs,) = term.student, term.teacher
        pair = (
            select(found["student"][ours.path], ours.level),
            select(found["teacher"][theirs.path], theirs.level),
        )
        channels = [channels_of(feature) for feature in pair]
        if ours.path.startswith("head") and ours.path != "head.connector":
            assert channels == [classes, classes]
        else:
            assert channels == [narrowed if reuses else wide, narrowed]
        classifiers = {
            key: nn.Linear(narrowed, classes)
            for key in ("student_classifier", "teacher_classifier")
            if key in hook.terms[term.name]
        }
        distiller = FeatureDistiller(*channels, **term.parts, **classifiers)
        drawn = [torch.randn(feature.shape, generator=generator) for feature in pair]
        targets = Targets((side, side), labels=torch.tensor([0, 1]))
        distance = distiller.distance(*drawn, targets if distiller.takes.targets else None)
        assert torch.isfinite(distance) and distance > 0


# What the settings say ------------------------------------------------------------------------


def of(stem: str) -> Config:
    (path,) = (p for p in SHIPPED if p.stem == stem)
    return read(path)


def settings(stem: str) -> dict[str, Any]:
    """The terms of a config, in plain values."""
    return hook_of(of(stem), "DistillHook").terms.to_dict()


@pytest.mark.parametrize("path", PAIRS, ids=lambda p: p.stem)
def test_hooks_hold_plain_values(path: Path) -> None:
    for hook in read(path).custom_hooks:
        assert _is_plain(hook.to_dict())


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(each) for each in value)
    return type(value) in (str, int, float, bool, type(None))


@pytest.mark.parametrize("path", CIFAR, ids=lambda p: p.stem)
def test_cifar_schedules_are_crds(path: Path) -> None:
    config = read(path)
    slow = path.stem.startswith(("mobilenet", "shufflenet"))
    nesterov = dict(nesterov=True) if "alignment" in path.stem else {}
    assert config.optim_wrapper.optimizer == dict(
        type="SGD", lr=0.01 if slow else 0.05, momentum=0.9, weight_decay=5e-4, **nesterov
    )
    assert config.param_scheduler.milestones == [150, 180, 210]
    assert (config.param_scheduler.gamma, config.param_scheduler.by_epoch) == (0.1, True)
    assert config.train_cfg.max_epochs == 240
    loader = config.train_dataloader
    assert loader.batch_size == config.auto_scale_lr.base_batch_size == 64
    assert (loader.dataset.type, loader.dataset.split) == ("CIFAR100", "train")
    if "logsum" not in path.stem:
        crop, flip, _ = loader.dataset.pipeline
        assert crop == dict(type="RandomCrop", crop_size=32, padding=4)
        assert flip == dict(type="RandomFlip", prob=0.5, direction="horizontal")


@pytest.mark.parametrize("path", IMAGENET, ids=lambda p: p.stem)
def test_imagenet_schedules_are_the_papers(path: Path) -> None:
    config = read(path)
    optimizer, dataset = config.optim_wrapper.optimizer, config.train_dataloader.dataset
    optimizer.pop("_scope_", None)
    if path.stem.startswith("deit"):
        assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ("AdamW", 1e-3, 0.05)
        assert config.train_cfg.max_epochs == 300
        assert config.auto_scale_lr.base_batch_size == 1024
        assert config.model.train_cfg.augments == [
            dict(type="Mixup", alpha=0.8),
            dict(type="CutMix", alpha=1.0),
        ]
        return
    assert optimizer == dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4)
    assert config.param_scheduler.milestones == [30, 60, 90]
    assert config.param_scheduler.gamma == 0.1
    # IJCKD's program goes on after the last drop.
    assert config.train_cfg.max_epochs == (120 if "ijckd" in path.stem else 100)
    assert config.auto_scale_lr.base_batch_size == 256
    if path.stem.endswith("20pct"):
        assert (dataset.type, dataset.fraction, dataset.seed) == ("mmkd.SeededSubset", 0.2, 0)
        dataset = dataset.dataset
    assert (dataset.type, dataset.split) == ("ImageNet", "train")
    assert "SeededSubset" not in str(config.val_dataloader.dataset)


def test_terms_are_the_papers() -> None:
    mlp = dict(type="mmkd.MLPProjector", hidden_channels=1024, num_layers=2)
    logsum = dict(type="mmkd.LogSumLoss", alpha=4.0)
    assert settings("vgg8_resnet50-logsum-randaugment_1xb64_cifar100") == dict(
        feature=dict(view="global", projector=mlp, loss=logsum)
    )
    kl = dict(type="mmkd.KDLoss", temperature=1.0)
    assert settings("resnet18_resnet34-logsum_8xb32_in1k") == dict(
        feature=dict(view="global", loss=logsum, weight=2.0),
        kl=dict(student="head.fc", teacher="head.fc", loss=kl),
    )
    ensemble = settings("mobilenet-v1_densenet201-ensemble_8xb32_in1k")
    assert ensemble == settings("vgg8_vgg13-ensemble_1xb64_cifar100")
    assert ensemble["feature"]["weight"] == 25.0
    for name, activation in dict(ensemble="relu", gelu="gelu", linear=None).items():
        end = "" if name == "ensemble" else f"-{name}"
        term = settings(f"vgg8_vgg13-ensemble{end}_1xb64_cifar100")["feature"]
        assert term["projector"] == dict(
            type="mmkd.ProjectorEnsemble", num_projectors=3, activation=activation
        )
    deep = dict(type="mmkd.MLPProjector", hidden_channels=None, num_layers=2, activate_output=True)
    assert settings("vgg8_vgg13-mlp_1xb64_cifar100")["feature"] == {
        **ensemble["feature"],
        "projector": deep,
    }
    deit = settings("deit-tiny_regnety-160-logsum_4xb256_in1k")
    assert deit["kl"]["student"] == "head.layers.head_dist"
    assert deit["feature"]["student_extra_tokens"] == 2
    for end, weight in (("hard", 0.5), ("soft", 0.1)):
        stem = f"deit-tiny_regnety-160-{end}_4xb256_in1k"
        assert settings(stem)["dist"]["weight"] == weight
        assert of(stem).model.head.loss.loss_weight == 1 - weight


def test_the_ablation_changes_the_normalizer() -> None:
    stem = "mobilenet-v2_regnety-160-{}_8xb32_in1k-20pct"
    batch = settings(stem.format("mse-batch"))["feature"]
    for name, normalizer in {
        "mse-none": dict(type="mmkd.IdentityNormalizer"),
        "mse-group": dict(type="mmkd.GroupNormalizer", num_groups=16),
    }.items():
        assert settings(stem.format(name))["feature"] == {**batch, "normalizer": normalizer}
    assert settings(stem.format("cosine"))["feature"] == {
        **batch,
        "normalizer": dict(type="mmkd.L2Normalizer"),
        "loss": dict(type="mmkd.L2Loss"),
    }
    logsum = settings(stem.format("logsum"))["feature"]
    assert {**logsum, "loss": dict(type="mmkd.MSELoss")} == batch


def test_the_alignment_study() -> None:
    stem = "resnet8x4_resnet32x4-alignment-{}_1xb64_cifar100"
    plain = of(stem.format("plain"))
    alignment = hook_of(plain, "ClassifierAlignmentHook")
    assert alignment.begin == 120
    config = of(stem.format("kd"))
    distill, logged = config.custom_hooks
    assert logged == alignment and distill.teacher.checkpoint == alignment.checkpoint
    kd = dict(type="mmkd.KDLoss", temperature=4.0)
    assert distill.terms == dict(kd=dict(student="head.fc", teacher="head.fc", loss=kd, weight=0.9))
    assert config.model.head.loss.loss_weight == 0.1
    assert config.optim_wrapper == plain.optim_wrapper


# Views ----------------------------------------------------------------------------------------


def views_of(stem: str) -> list[np.ndarray]:
    """What a config's pipeline makes of one image; its crop and flip left out."""
    pipeline = of(stem).train_dataloader.dataset.pipeline
    for step in pipeline[0].transforms:
        del step[:2]
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    results = dict(img=image, img_shape=(32, 32), gt_label=3)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        for step in pipeline:
            results = TRANSFORMS.build(step)(results)
    return [view.permute(1, 2, 0).numpy() for view in results["inputs"]]


def test_second_views_are_turned_by_right_angles() -> None:
    np.random.seed(0)
    seen = set()
    for _ in range(20):
        upright, turned = views_of("resnet20_resnet56-logsum-rotation_1xb64_cifar100")
        seen |= {k for k in range(4) if np.array_equal(turned, np.rot90(upright, k))}
    assert seen == {1, 2, 3}


def test_second_views_go_through_randaugment() -> None:
    np.random.seed(0)
    pairs = [views_of("resnet20_resnet56-logsum-randaugment_1xb64_cifar100") for _ in range(5)]
    assert all(np.array_equal(upright, pairs[0][0]) for upright, _ in pairs)
    assert len({changed.tobytes() for _, changed in pairs}) == 5
    assert not any(np.array_equal(upright, changed) for upright, changed in pairs)


# The page that lists them ---------------------------------------------------------------------

README = (CONFIGS / "README.md").read_text()


@every_config
def test_the_readme_lists_every_config(path: Path) -> None:
    assert f"({path.relative_to(CONFIGS)})" in README


def test_every_config_in_the_readme_exists() -> None:
    linked = re.findall(r"\]\((?!https:)([^)#]+)\)", README)
    assert len(linked) >= len(SHIPPED)
    for link in linked:
        assert (CONFIGS / link).exists(), link
    for named in re.findall(r"configs/[\w./-]+\.py", README):
        assert (CONFIGS.parents[1] / named).exists(), named


def test_the_readme_brings_in_other_libraries_weights(tmp_path: Path) -> None:
    code = README.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.split("\n\nPath(")[0], names)
    for config, weights, classifier, prefix in (
        (
            of("resnet18_8xb32_in1k-20pct"),
            torchvision.models.resnet18().state_dict(),
            "fc",
            "backbone.",
        ),
        (
            of("mobilenet-v1_8xb32_in1k"),
            timm.create_model("mobilenetv1_100").state_dict(),
            "classifier",
            "backbone.timm_model.",
        ),
    ):
        names["save"](weights, classifier, prefix, tmp_path / "weights.pth")
        model = build_without_numbers(config.model)
        model.load_state_dict(torch.load(tmp_path / "weights.pth"), assign=True)
        assert torch.equal(model.head.fc.weight, weights[f"{classifier}.weight"])
