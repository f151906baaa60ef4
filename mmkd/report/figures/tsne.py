"""Features of many objects in the plane, coloured by their classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from mmkd.report.figures.canvas import LOOKS
from mmkd.report.figures.grid import across, grid, save_figure
from mmkd.report.figures.panels import wrapped
from mmkd.report.style import GRID

__all__ = ["Points", "draw_tsne", "embedded", "nearest_alike"]

# Classes that have a colour of their own.
_COLOURS = 10
# Van der Maaten & Hinton (JMLR 2008) find 5 to 50 much alike.
_PERPLEXITY = 30.0


class Points(NamedTuple):
    """Objects.

    Args:
        features: ``[M, C]``.
        labels: ``[M]``: indices of the classes.
        classes: Their names.
    """

    features: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]


def embedded(features: np.ndarray) -> np.ndarray:
    """t-SNE (van der Maaten & Hinton, JMLR 2008) of standardised features, ``[M, 2]``: the same
    each time.

    Args:
        features: ``[M, C]``, two objects or more.
    """
    count = len(features)
    if count < 4:  # PCA, from which it starts, has no two directions.
        return np.pad(np.arange(count, dtype=float)[:, None], ((0, 0), (0, 1)))
    tsne = TSNE(
        perplexity=min(_PERPLEXITY, (count - 1) / 3),
        init="pca" if features.shape[1] > 1 else "random",
        random_state=0,
    )
    return tsne.fit_transform(StandardScaler().fit_transform(features))


def nearest_alike(features: np.ndarray, labels: np.ndarray) -> float:
    """The share of objects whose nearest other one, of standardised features, is of their class.

    Args:
        features: ``[M, C]``, two objects or more.
        labels: ``[M]``.
    """
    scaled = StandardScaler().fit_transform(features)
    # Of each fitted point, the others alone.
    [nearest] = NearestNeighbors(n_neighbors=1).fit(scaled).kneighbors(return_distance=False).T
    return float(np.mean(labels[nearest] == labels))


def draw_tsne(runs: Mapping[str, Points], folder: Path) -> Path:
    """A panel a run.

    Args:
        runs: By their names.
        folder: Made where it is missing; files of the same names are replaced.

    Returns:
        The picture, beside which lie SVG and CSV.
    """
    counts = Counter(
        points.classes[label] for points in runs.values() for label in points.labels.tolist()
    )
    named = sorted(name for name, _ in counts.most_common(_COLOURS))
    colours = dict(zip(named, matplotlib.colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
    table = []
    with matplotlib.rc_context(LOOKS):
        title = "t-SNE of the features before the class; share whose nearest is of their class"
        figure, axes = grid(len(runs), title, across(len(runs)), shared=False)
        for axis, (run, points) in zip(axes, runs.items(), strict=True):
            places = embedded(points.features)
            names = [points.classes[label] for label in points.labels.tolist()]
            shades = [colours.get(name, GRID) for name in names]
            axis.scatter(places[:, 0], places[:, 1], s=6, c=shades, linewidths=0)
            alike = nearest_alike(points.features, points.labels)
            axis.set_title(wrapped(f"{run}: {alike:.0%} of {len(names)}", 40), fontsize=10)
            # Neither direction means anything.
            axis.set_xticks([])
            axis.set_yticks([])
            table += [(run, n, *map(float, place)) for n, place in zip(names, places, strict=True)]
        shown = [*colours.items(), *([("others", GRID)] if len(counts) > len(named) else [])]
        marks = [Line2D([], [], marker="o", linestyle="", color=colour) for _, colour in shown]
        figure.legend(
            marks,
            [wrapped(name, 30) for name, _ in shown],
            loc="outside lower center",
            ncols=min(len(marks), 4),
            frameon=False,
        )
        return save_figure(figure, folder, "tsne", ("run", "class", "x", "y"), table)
