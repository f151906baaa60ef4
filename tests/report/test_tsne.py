"""Features of many objects in the plane."""

from __future__ import annotations

import numpy as np
import pytest

from mmkd.report.figures.tsne import embedded, nearest_alike


def clusters() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    return draw.normal(size=(60, 8)) + 12 * np.eye(8)[labels], labels


def test_what_is_near_stays_near() -> None:
    features, labels = clusters()
    places = embedded(features)
    assert places.shape == (60, 2)
    assert nearest_alike(places, labels) == 1
    assert np.array_equal(places, embedded(features))


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_few_objects(count: int) -> None:
    features = np.arange(count * 3, dtype=np.float32).reshape(count, 3) ** 2
    assert np.isfinite(embedded(features)).all()


def test_nearest_of_the_same_class_by_brute_force() -> None:
    features, labels = clusters()
    features[:, 0] *= 100  # Standardised: a channel's scale does not decide.
    features = np.concatenate([features, np.ones((60, 1))], axis=1)
    labels = labels.copy()
    labels[::7] = 3
    scaled = (features[:, :8] - features[:, :8].mean(0)) / features[:, :8].std(0)
    distances = ((scaled[:, None] - scaled[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    expected = np.mean(labels[distances.argmin(1)] == labels)
    assert 0 < expected < 1
    assert nearest_alike(features, labels) == pytest.approx(expected)
