from __future__ import annotations

import pytest
import torch
from mmcv.ops import SigmoidFocalLoss, sigmoid_focal_loss, softmax_focal_loss
from torch import Tensor
from torch.autograd import gradcheck

SAMPLES, CLASSES = 7, 4
# Every class, the background (4), one class twice.
TARGET = torch.tensor([0, 1, 2, 3, 4, 1, 4])


def logits(scale: float = 3.0, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(SAMPLES, CLASSES, generator=generator, dtype=torch.float64) * scale
    return values.to(device, dtype)


def class_weight() -> Tensor:
    return torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)


def sigmoid_reference(x: Tensor, gamma: float, alpha: float, weight: Tensor | None) -> Tensor:
    p = x.sigmoid()
    output = torch.zeros_like(x)
    for n, target in enumerate(TARGET.tolist()):
        for c in range(CLASSES):
            if c == target:
                loss = -alpha * (1 - p[n, c]) ** gamma * p[n, c].log()
            else:
                loss = -(1 - alpha) * p[n, c] ** gamma * (1 - p[n, c]).log()
            if weight is not None and target < CLASSES:
                loss = loss * weight[target]
            output[n, c] = loss
    return output


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_focal_loss_and_its_gradient(device, gamma, weighted):
    weight = class_weight() if weighted else None
    x, y = logits(device=device).requires_grad_(), logits().requires_grad_()
    on_device = None if weight is None else weight.to(device)
    output = sigmoid_focal_loss(x, TARGET.to(device), gamma, 0.25, on_device, "none")
    expected = sigmoid_reference(y, gamma, 0.25, weight)
    torch.testing.assert_close(output.cpu(), expected)
    upstream = torch.rand_like(expected)
    output.backward(upstream.to(device))
    expected.backward(upstream)
    torch.testing.assert_close(x.grad.cpu(), y.grad)


def test_sigmoid_focal_loss_without_focus_is_half_the_cross_entropy():
    one_hot = torch.nn.functional.one_hot(TARGET, CLASSES + 1)[:, :CLASSES].double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits(), one_hot, reduction="sum"
    )
    loss = sigmoid_focal_loss(logits(), TARGET, 0.0, 0.5, None, "sum")
    torch.testing.assert_close(loss, expected / 2)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_sigmoid_focal_loss_by_finite_differences(device, reduction):
    weight, target = class_weight().to(device), TARGET.to(device)
    x = logits(device=device).requires_grad_()
    assert gradcheck(lambda x: sigmoid_focal_loss(x, target, 2.0, 0.25, weight, reduction), x)


def test_sigmoid_focal_loss_stays_finite_for_sure_and_wrong_logits():
    x = torch.tensor([[200.0, -200.0, -200.0, 200.0]]).requires_grad_()
    output = sigmoid_focal_loss(x, torch.tensor([1]), 2.0, 0.25, None, "none")
    torch.testing.assert_close(output, torch.tensor([[150.0, 50.0, 0.0, 150.0]]))
    output.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.75, -0.25, 0.0, 0.75]]))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_softmax_focal_loss_and_its_gradient(device, gamma, weighted):
    target = TARGET % CLASSES
    x, y = logits(device=device).requires_grad_(), logits().requires_grad_()
    weight = class_weight() if weighted else None
    on_device = None if weight is None else weight.to(device)
    loss = softmax_focal_loss(x, target.to(device), gamma, 0.25, on_device, "sum")
    p = y.softmax(dim=1)[torch.arange(SAMPLES), target]
    per_sample = -0.25 * (1 - p) ** gamma * p.log()
    expected = (per_sample if weight is None else per_sample * weight[target]).sum()
    torch.testing.assert_close(loss.cpu(), expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(x.grad.cpu(), y.grad)


def test_softmax_focal_loss_ignores_negative_targets():
    x = logits().requires_grad_()
    target = torch.tensor([-1, 1, 2, 3, 0, 1, -1])
    loss = softmax_focal_loss(x, target, 2.0, 0.25, None, "sum")
    inner = softmax_focal_loss(x[1:6].detach(), target[1:6], 2.0, 0.25, None, "sum")
    torch.testing.assert_close(loss, inner)
    loss.backward()
    assert not x.grad[[0, 6]].any()
    assert x.grad[1:6].any(dim=1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_and_autocast(device, dtype):
    x = logits(dtype=dtype, device=device).requires_grad_()
    exact = x.detach().double().requires_grad_()
    target = TARGET.to(device)
    with torch.autocast(device, dtype=dtype):
        output = sigmoid_focal_loss(x, target, 2.0, 0.25, None, "none")
    expected = sigmoid_focal_loss(exact, target, 2.0, 0.25, None, "none")
    assert output.dtype == dtype
    torch.testing.assert_close(output.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)
    output.backward(torch.ones_like(output))
    expected.backward(torch.ones_like(expected))
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_no_samples(device):
    x = torch.zeros(0, CLASSES, device=device, requires_grad=True)
    target = torch.zeros(0, dtype=torch.long, device=device)
    loss = SigmoidFocalLoss(2.0, 0.25, reduction="sum")(x, target)
    loss = loss + softmax_focal_loss(x, target, 2.0, 0.25, None, "sum")
    assert loss.item() == 0
    loss.backward()
    assert x.grad.shape == (0, CLASSES)
