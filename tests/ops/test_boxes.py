from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, nms, soft_nms


def iou(a, b, offset: int = 0):
    """IoU of two boxes; exact for Fractions."""
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union if union else 0


def greedy(boxes, scores, threshold, offset: int = 0) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[index], boxes[better], offset) <= threshold for better in kept):
            kept.append(index)
    return kept


def soft(boxes, scores, threshold, sigma, min_score, method, offset):
    scores, left, kept = list(scores), set(range(len(boxes))), []
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        kept.append((best, scores[best]))
        for other in sorted(left):
            overlap = iou(boxes[best], boxes[other], offset)
            if method == "gaussian":
                scores[other] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= threshold:
                scores[other] *= 1 - overlap if method == "linear" else 0
            if scores[other] < min_score:
                left.remove(other)
    return kept


def random_boxes(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 50
    size = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 30
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.cat([corner, corner + size], dim=1), scores


# Few and small coordinates, so that an IoU often equals the threshold.
coordinate = st.integers(0, 6)
box = st.tuples(coordinate, coordinate, st.integers(1, 5), st.integers(1, 5)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    boxes=st.lists(box, min_size=0, max_size=12),
    threshold=st.sampled_from(["0.1", "0.3", "0.5", "0.7"]),
    offset=st.sampled_from([0, 1]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_nms_is_exactly_greedy(boxes, threshold, offset, dtype):
    tensor = torch.tensor(boxes, dtype=dtype).reshape(-1, 4)
    scores = torch.tensor([(7 * i) % 13 + 1 for i in range(len(boxes))], dtype=dtype)
    exact = [tuple(map(Fraction, box)) for box in boxes]
    expected = greedy(exact, scores.tolist(), Fraction(threshold), offset)
    dets, kept = nms(tensor, scores, float(threshold), offset=offset)
    assert kept.tolist() == expected
    assert torch.equal(dets, torch.cat([tensor, scores[:, None]], dim=1)[expected])


def test_nms_at_the_threshold_keeps_both():
    # 1 x 3 of 1 x 10 cells is an IoU of 3/10, which float32 rounds up and float64 down.
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 3, 1]])
    for dtype in (torch.float32, torch.float64):
        _, kept = nms(boxes.to(dtype), torch.tensor([0.9, 0.8], dtype=dtype), 0.3)
        assert kept.tolist() == [0, 1]


@pytest.mark.parametrize("offset", [0, 1])
def test_nms_filters_by_score_and_number(device, offset):
    boxes, scores = random_boxes(200)
    above = (scores > 0.4).nonzero().squeeze(1)
    kept = greedy(boxes[above].tolist(), scores[above].tolist(), 0.3, offset)
    _, indices = nms(
        boxes.to(device), scores.to(device), 0.3, offset, score_threshold=0.4, max_num=20
    )
    assert indices.tolist() == above[kept][:20].tolist()


def test_batched_nms_separates_classes(device):
    boxes, scores = random_boxes(150)
    labels = torch.arange(150) % 3
    dets, kept = batched_nms(
        boxes.to(device),
        scores.to(device),
        labels.to(device),
        {"type": "nms", "iou_threshold": 0.3},
    )
    expected = []
    for label in range(3):
        members = (labels == label).nonzero().squeeze(1)
        chosen = greedy(boxes[members].tolist(), scores[members].tolist(), 0.3)
        expected += members[chosen].tolist()
    expected.sort(key=lambda i: -scores[i])
    assert kept.tolist() == expected
    assert torch.equal(dets[:, 4].cpu(), scores[expected])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nms_takes_half_precision_and_mixed_types(device, dtype):
    boxes, scores = (tensor.to(device, dtype) for tensor in random_boxes(60))
    _, full = nms(boxes.float(), scores.float(), 0.5)
    _, half = nms(boxes, scores, 0.5)
    _, mixed = nms(boxes.float(), scores, 0.5)
    with torch.autocast(device, dtype=dtype):
        _, autocast = nms(boxes, scores, 0.5)
    assert half.tolist() == mixed.tolist() == autocast.tolist() == full.tolist()


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_nms_against_the_loop(method, offset, dtype):
    boxes, scores = random_boxes(80, seed=1)
    dets, kept = soft_nms(boxes.to(dtype), scores.to(dtype), 0.3, 0.5, 0.05, method, offset)
    expected = soft(boxes.tolist(), scores.tolist(), 0.3, 0.5, 0.05, method, offset)
    assert 10 < len(kept) < 80
    assert kept.tolist() == [index for index, _ in expected]
    reference = torch.tensor([score for _, score in expected], dtype=dtype)
    torch.testing.assert_close(dets[:, 4], reference)
    assert torch.equal(dets[:, :4], boxes.to(dtype)[kept])


def test_soft_nms_lowers_a_score_at_the_threshold():
    boxes, scores = torch.tensor([[0.0, 0, 2, 1], [0, 0, 1, 1]]), torch.tensor([0.9, 0.8])
    dets, kept = soft_nms(boxes, scores, 0.5, method="linear")
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.4]))
    assert kept.tolist() == [0, 1]


def test_soft_nms_keeps_the_best_box_whatever_its_score():
    _, kept = soft_nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1e-4]), min_score=0.05)
    assert kept.tolist() == [0]


def test_soft_nms_takes_arrays_and_boxes_without_area():
    boxes = np.array([[3, 1, 3, 1], [3, 1, 3, 1], [4, 3, 5, 4]], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.7], dtype=np.float32)
    for method in ("naive", "linear", "gaussian"):
        dets, kept = soft_nms(boxes, scores, method=method)
        assert kept.tolist() == [0, 1, 2]
        np.testing.assert_array_equal(dets[:, 4], scores)


def test_no_boxes(device):
    boxes, scores = torch.zeros(0, 4, device=device), torch.zeros(0, device=device)
    for dets, kept in (nms(boxes, scores, 0.5), soft_nms(boxes, scores)):
        assert dets.shape == (0, 5)
        assert kept.shape == (0,)
        assert kept.dtype == torch.int64
