"""One iteration of a classifier in MMEngine's Runner, and its pieces by hand in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.functional import conv2d

from helpers.classifier_toy import PREPROCESSOR, LabelledNoise, classifier_config, distill
from helpers.toy import Probe, differences, distill_hook_of, train

LEARNING_RATE = 0.1
BATCH = 4

Weights = dict[str, Tensor]


@dataclass
class Step:
    """The last iteration of a run: all weights before and after it, by name, and the teacher's,
    where it has its own."""

    runner: Runner
    parameters: set[str]
    seen: list[Weights]
    after: Weights
    teacher: Weights
    file: Weights = field(repr=False)

    @property
    def before(self) -> Weights:
        """All weights before it; those before earlier iterations stand in ``seen``, too."""
        return self.seen[-1]

    def moved(self) -> set[str]:
        """Names of the parameters that are not what they were."""
        both = self.parameters & set(self.before)
        return {k for k in both if not torch.equal(self.before[k], self.after[k])}


def weights_of(runner: Runner) -> Weights:
    """Student's and projectors', the latter under the names of their terms."""
    distillers = distill_hook_of(runner).distillers
    both = {**runner.model.state_dict(), **distillers.state_dict(prefix="distill.")}
    return {name: value.detach().clone() for name, value in both.items()}


def one_step(
    folder: Path, teacher: dict, model: dict, terms: dict, iterations: int = 1, **settings: Any
) -> Step:
    """Trains on the first four images by SGD, and tells of the last iteration.

    Args:
        folder: For its files.
        teacher: One, or several by name; the weights of these are told with their names before.
        model, terms, settings: Of the config and its hook.
        iterations: All on the same images.
    """
    seen: list[Weights] = []
    config = classifier_config(folder, model, **distill(teacher, terms, **settings))
    config.train_cfg.max_epochs = iterations
    config.train_dataloader.dataset.length = BATCH
    config.train_dataloader.sampler.shuffle = False
    config.optim_wrapper.optimizer = dict(type="SGD", lr=LEARNING_RATE)
    runner = train(config, Probe(before_train_iter=lambda runner: seen.append(weights_of(runner))))
    assert runner.iter == iterations
    networks: Weights = {}
    files: Weights = {}
    hook = distill_hook_of(runner)
    for source, of_hook in hook.teachers.items():
        own, prefix = (teacher[source], f"{source}.") if source in teacher else (teacher, "")
        if "checkpoint" not in own:
            continue
        assert all(parameter.grad is None for parameter in of_hook.model.parameters())
        networks |= {prefix + k: v.clone() for k, v in of_hook.model.state_dict().items()}
        files |= {prefix + k: v for k, v in torch.load(own["checkpoint"])["state_dict"].items()}
    parameters = dict(runner.model.named_parameters())
    parameters |= dict(hook.distillers.named_parameters(prefix="distill"))
    return Step(
        runner=runner,
        parameters=set(parameters),
        seen=seen,
        after=weights_of(runner),
        teacher=networks,
        file=files,
    )


# By hand ----------------------------------------------------------------------------------


def batch() -> tuple[Tensor, Tensor]:
    """The four images as RGB, normalised, and their labels."""
    images = torch.stack([LabelledNoise().image(i) for i in range(BATCH)]).double()
    mean, std = (torch.tensor(PREPROCESSOR[k]).double().view(1, 3, 1, 1) for k in ("mean", "std"))
    return (images.flip(1) - mean) / std, torch.tensor([0, 1, 2, 0])


def first_map(w: Weights, x: Tensor) -> Tensor:
    """Either side's, before BatchNorm and ReLU."""
    return conv2d(x, w["backbone.conv.weight"], w["backbone.conv.bias"], stride=2, padding=1)


def student_map(w: Weights, x: Tensor) -> Tensor:
    return first_map(w, x).clamp(min=0)


def teacher_map(w: Weights, x: Tensor) -> Tensor:
    return normed_map(w, x).clamp(min=0)


def normed_map(w: Weights, x: Tensor) -> Tensor:
    """The teacher's before ReLU, by BatchNorm's running statistics: it is in evaluation mode."""
    x = first_map(w, x)
    scale = w["backbone.norm.weight"] / (w["backbone.norm.running_var"] + 1e-5).sqrt()
    shift = w["backbone.norm.bias"] - scale * w["backbone.norm.running_mean"]
    return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def pooled(x: Tensor) -> Tensor:
    return x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])


def affine(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def connected(w: Weights, name: str, x: Tensor) -> Tensor:
    """Convolutions, each with BatchNorm on the batch's statistics and ReLU."""
    index = 0
    while f"{name}.layers.{index}.weight" in w:
        kernel = w[f"{name}.layers.{index}.weight"]
        x = conv2d(x, kernel, padding=kernel.shape[-1] // 2)
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        variance = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)
        gamma, beta = (
            w[f"{name}.layers.{index + 1}.{k}"].view(1, -1, 1, 1) for k in ("weight", "bias")
        )
        x = (gamma * (x - mean) / (variance + 1e-5).sqrt() + beta).clamp(min=0)
        index += 3
    return x


def others(x: Tensor, y: Tensor) -> Tensor:
    """What is not of an image's own class, ``[N, K - 1]``."""
    rows = [torch.cat([row[:k], row[k + 1 :]]) for row, k in zip(x, y.tolist(), strict=True)]
    return torch.stack(rows)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return -p[torch.arange(len(labels)), labels].log().mean()


def mse(a: Tensor, b: Tensor) -> Tensor:
    assert a.shape == b.shape
    return ((a - b) ** 2).sum() / a.numel()


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    p, q = ((each / temperature).exp() for each in (student, teacher))
    p, q = (each / each.sum(dim=1, keepdim=True) for each in (p, q))
    return temperature**2 * (q * (q / p).log()).sum() / len(p)


def standardised(x: Tensor) -> Tensor:
    mean = x.mean(dim=0)
    return (x - mean) / ((x - mean).square().mean(dim=0) + 1e-4).sqrt()


def logsum(student: Tensor, teacher: Tensor) -> Tensor:
    difference = standardised(student) - standardised(teacher)
    return ((difference**2) ** 2).sum().add(1e-12).log()


def misaligned(student: Tensor, teacher: Tensor) -> Tensor:
    lengths = (student**2).sum(1).sqrt() * (teacher**2).sum(1).sqrt()
    return 1 - ((student * teacher).sum(1) / lengths).mean()


Objective = Callable[[Weights, Weights, Tensor, Tensor], Tensor]


def check(step: Step, objective: Objective, trained: set[str]) -> None:
    """Every weight after the step, and which of them moved.

    Args:
        objective: Of the student's and the projectors' weights, the teacher's, images and labels.
        trained: First parts of the names of the parameters that the method trains.
    """
    images, labels = batch()
    teacher = {k: v.double() for k, v in step.file.items()}
    given = {k: v.double() for k, v in step.before.items()}
    ours = {k: v.requires_grad_() for k, v in given.items() if k in step.parameters}
    value = objective(given, teacher, images, labels)
    gradients = torch.autograd.grad(value, list(ours.values()), allow_unused=True)

    def is_trained(name: str) -> bool:
        return any(name.startswith(each) for each in trained)

    assert step.moved() == set(filter(is_trained, ours))
    assert all(any(name.startswith(each) for name in ours) for each in trained)
    for (name, weight), gradient in zip(ours.items(), gradients, strict=True):
        if not is_trained(name):
            continue
        assert gradient is not None, name
        moved = step.before[name].double() - step.after[name].double()
        torch.testing.assert_close(
            moved, LEARNING_RATE * gradient, rtol=1e-4, atol=1e-6, msg=lambda m, k=name: f"{k}: {m}"
        )
        after = weight.detach() - LEARNING_RATE * gradient
        torch.testing.assert_close(step.after[name].double(), after, rtol=1e-4, atol=1e-6)
    # The step saw the batch's statistics once, and the teacher is what its file holds.
    for name in step.before:
        if name.endswith("num_batches_tracked"):
            assert step.after[name] - step.before[name] == is_trained(name), name
    assert not differences(dict(step.file), step.teacher)
