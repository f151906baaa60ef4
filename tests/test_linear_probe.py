"""What a linear map tells from a feature, beside least squares by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mmkd.linear_probe import LinearProbe, ProbedPair, classes_on_grid
from mmkd.targets import Boxes, Targets

SIZE, GRID = (32, 64), (4, 8)


def boxes(*corners: tuple[float, float, float, float], classes: list[int]) -> Boxes:
    return Boxes(torch.tensor(corners).reshape(-1, 4), torch.tensor(classes))


def test_classes_on_a_grid_by_hand() -> None:
    """Cells of 8 x 8 pixels. The large box's middle half is 16 to 48 by 8 to 24."""
    large, small = (0.0, 0.0, 64.0, 32.0), (17.0, 9.0, 20.0, 12.0)
    [found, empty] = classes_on_grid(
        [boxes(large, small, classes=[4, 0]), boxes(classes=[])], SIZE, GRID
    )
    assert found.tolist() == [
        [-1, -1, -1, -1, -1, -1, -1, -1],
        [-1, -1, 1, 5, 5, 5, -1, -1],
        [-1, -1, 5, 5, 5, 5, -1, -1],
        [-1, -1, -1, -1, -1, -1, -1, -1],
    ]
    assert not empty.any()
    # A box that covers no cell's centre shows in the cell of its own; the rest is background.
    [found] = classes_on_grid([boxes((25, 17, 27, 18), classes=[2])], SIZE, GRID)
    assert found[2, 3] == 3 and found.sum() == 3


def test_boxes_beyond_the_image() -> None:
    [found] = classes_on_grid(
        [boxes((60, 28, 90, 50), (-9, -9, -5, -5), classes=[0, 1])], SIZE, GRID
    )
    assert set(found.unique().tolist()) <= {-1, 0, 1}


def brute_force(groups: list[tuple[Tensor, Tensor]], num_classes: int) -> list[float]:
    """R² of each group by ridge regression on the others, for the best of the penalties."""
    scores = []
    for penalty in (1e-3, 1e-2, 1e-1, 1.0):
        of_groups = []
        for held_out in range(len(groups)):
            rest = [each for index, each in enumerate(groups) if index != held_out]
            x = torch.cat([x for x, _ in rest]).double().numpy()
            y = one_hot(torch.cat([y for _, y in rest]), num_classes).double().numpy()
            mean, spread = x.mean(axis=0), x.std(axis=0)
            design = np.vstack(
                [(x - mean) / spread, np.sqrt(penalty * len(x)) * np.eye(x.shape[1])]
            )
            goal = np.vstack([y - y.mean(axis=0), np.zeros((x.shape[1], num_classes))])
            weights = np.linalg.lstsq(design, goal, rcond=None)[0]
            x, labels = groups[held_out]
            truth = one_hot(labels, num_classes).double().numpy()
            guess = (x.double().numpy() - mean) / spread @ weights + y.mean(axis=0)
            error, variance = (
                np.square(truth - other).sum() for other in (guess, truth.mean(axis=0))
            )
            of_groups.append(1 - error / variance)
        scores.append(of_groups)
    return max(scores, key=lambda each: sum(each))


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_scores_are_those_of_least_squares(offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    groups = []
    probe = LinearProbe(5)
    for group, size in enumerate((90, 120, 60, 80)):
        classes = torch.randint(0, 4, (size,), generator=generator)
        # Some batches do not show the last class.
        classes = classes.clamp_max(2) if group == 0 else classes
        samples = torch.randn(size, 5, generator=generator) + one_hot(classes, 5) + offset
        samples = samples * torch.tensor([1.0, 10, 100, 0.1, 1])
        groups.append((samples, classes))
        for part in (slice(0, 40), slice(40, None)):
            probe.add(group, samples[part], classes[part])
    found = probe.scores(torch.device("cpu"))
    assert found is not None
    assert found.tolist() == pytest.approx(brute_force(groups, 4), abs=1e-4)


def test_too_few_objects_tell_nothing() -> None:
    probe = LinearProbe(2)
    assert probe.scores(torch.device("cpu")) is None
    for group in range(4):
        probe.add(group, torch.randn(100, 2), torch.zeros(100, dtype=torch.long))
    assert probe.scores(torch.device("cpu")) is None


# Pairs of features ------------------------------------------------------------------------------


def scene(seed: int) -> tuple[Targets, Tensor]:
    """Objects of three classes, one a cell at most, and the classes of the cells."""
    generator = torch.Generator().manual_seed(seed)
    classes = (torch.rand(2, *GRID, generator=generator) * 6).long().sub(2).clamp_min(0)
    images = []
    for image in classes:
        rows, columns = image.nonzero(as_tuple=True)
        corners = torch.stack([columns, rows, columns + 1, rows + 1], dim=1) * 8.0
        images.append(Boxes(corners, image[rows, columns] - 1))
    return Targets(SIZE, boxes=images), classes


def telling(classes: Tensor, width: int, noise: float, seed: int) -> Tensor:
    """A feature ``[N, width, h, w]`` that shows the classes beneath noise."""
    mix = torch.randn(4, width, generator=torch.Generator().manual_seed(width))
    generator = torch.Generator().manual_seed(seed)
    signal = one_hot(classes, 4).float() @ mix
    return (signal + noise * torch.randn(signal.shape, generator=generator)).permute(0, 3, 1, 2)


def scores(student_noise: float, teacher_noise: float) -> tuple[Tensor, Tensor]:
    pair = ProbedPair()
    for seed in range(24):
        targets, classes = scene(seed)
        student = telling(classes, 6, student_noise, 2 * seed)
        # On a finer grid, to be pooled.
        teacher = telling(classes, 12, teacher_noise, 2 * seed + 1).repeat_interleave(2, dim=2)
        assert pair.add(student, teacher, targets)
    found = pair.scores()
    assert found is not None
    return found


def test_features_that_can_and_cannot_tell() -> None:
    student, teacher = scores(1.0, 0.1)
    assert (teacher > 0.95).all() and (student < 0.9).all()
    student, teacher = scores(0.1, 100.0)
    assert (student > 0.95).all() and (teacher.abs() < 0.1).all()


@pytest.mark.parametrize("shape", [(2, 5), (2, 6, 5), (2, 5, 1, 1), (2, 4096, 2, 2)])
def test_what_is_no_map_of_a_detector_is_not_taken(shape: tuple[int, ...]) -> None:
    feature = torch.zeros(shape)
    assert not ProbedPair().add(feature, feature, Targets(SIZE, boxes=[boxes(classes=[])] * 2))


def test_images_without_boxes_are_not_taken() -> None:
    feature = torch.zeros(2, 4, *GRID)
    assert not ProbedPair().add(feature, feature, Targets(SIZE))


def test_batches_without_objects_under_autocast() -> None:
    pair = ProbedPair()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for seed in range(24):
            targets, classes = scene(seed)
            if seed == 0:
                targets, classes = Targets(SIZE, boxes=[boxes(classes=[])] * 2), classes * 0
            feature = telling(classes, 6, 0.1, seed)
            assert pair.add(feature.bfloat16(), feature, targets)
    found = pair.scores()
    assert found is not None and (found[1] > 0.95).all()
