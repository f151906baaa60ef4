"""The head that CID deploys: what it predicts, and when it learns."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample

from mmkd.registry import MODELS

FEATURES, CLASSES = 4, 3


def head(**settings: Any) -> Any:
    with DefaultScope.overwrite_default_scope("mmpretrain"), torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS.build(
            dict(type="mmkd.ContextClsHead", num_classes=CLASSES, in_channels=FEATURES, **settings)
        )


def known(temperature: float = 4.0) -> Any:
    found = head(temperature=temperature)
    found.context.copy_(torch.arange(12.0).reshape(CLASSES, FEATURES))
    found.is_known.fill_(True)
    return found


def samples() -> list[DataSample]:
    return [DataSample().set_gt_label(label) for label in (0, 2)]


def feature() -> torch.Tensor:
    return torch.randn(2, FEATURES, generator=torch.Generator().manual_seed(1), requires_grad=True)


def test_it_predicts_by_the_first_classifier_until_contexts_are_known() -> None:
    first, x = head(), feature()
    torch.testing.assert_close(first((x,)), first.fc(x))
    losses = first.loss((x,), samples())
    assert losses["loss"] == 0
    losses["loss"].backward()
    assert all(p.grad is None or not p.grad.any() for p in first.parameters())


def test_then_by_the_second_beside_the_mean_of_likely_classes() -> None:
    for temperature in (1.0, 4.0):
        second, x = known(temperature), feature()
        powers = (second.fc(x) / temperature).exp()
        likely = powers / powers.sum(dim=1, keepdim=True)
        context = torch.stack(
            [sum(p * c for p, c in zip(row, second.context, strict=True)) for row in likely]
        )
        weight, bias = second.context_fc.weight, second.context_fc.bias
        expected = x @ weight[:, :FEATURES].T + context @ weight[:, FEATURES:].T + bias
        torch.testing.assert_close(second((x,)), expected)


def test_the_first_classifier_does_not_learn_from_labels() -> None:
    second, x = known(), feature()
    loss = second.loss((x,), samples())["loss"]
    loss.backward()
    expected = torch.nn.functional.cross_entropy(second((x,)), torch.tensor([0, 2]))
    torch.testing.assert_close(loss, expected)
    assert not second.fc.weight.grad.any()
    assert second.context_fc.weight.grad.any() and x.grad.any()


def test_a_checkpoint_holds_all_that_it_predicts_by() -> None:
    trained, fresh, x = known(), head(), feature()
    fresh.load_state_dict(trained.state_dict())
    torch.testing.assert_close(fresh((x,)), trained((x,)))
