"""Charts of the report's page, which plotly draws in the browser."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from mmkd.evaluation.coco import IOUS, RECALLS
from mmkd.evaluation.comparison import Comparison, GroupResult, Score
from mmkd.evaluation.detection_errors import ERROR_TYPES
from mmkd.report.figures import COLORS
from mmkd.work_dirs import WorkDir

__all__ = [
    "Chart",
    "RunStyle",
    "class_chart",
    "curve_charts",
    "difference_chart",
    "error_charts",
    "precision_charts",
    "run_styles",
    "score_chart",
    "size_chart",
    "tradeoff_charts",
]

MAX_POINTS = 400
MAX_CLASSES = 20
SHOWN_IOUS = (0.5, 0.75, 0.9)


@dataclass(frozen=True)
class RunStyle:
    """How a run is drawn everywhere: told apart by more than its colour.

    Args:
        index: The page's colour of the run is the CSS variable ``--run-<index>``.
        color: On a light ground.
        dark_color: On a dark ground.
        dash: Of lines, as plotly and SVG write it.
        symbol: Of points, as plotly calls it.
        glyph: The symbol as a character, for the legend.
        pattern: Of bars.
    """

    index: int
    color: str
    dark_color: str
    dash: str
    symbol: str
    glyph: str
    pattern: str


# Colour on a light and on a dark ground, dash, symbol, glyph and pattern. Okabe and Ito's palette;
# the two darkest are lighter on a dark ground.
_ROLE_STYLES = {
    "baseline": (COLORS["plain"], "#F0793A", "6px,3px", "circle", "●", "/"),
    "teacher": (COLORS["teacher"], "#FFFFFF", "2px,2px", "triangle-up", "▲", "."),
}
_RUN_STYLES = [
    (COLORS["distilled"], "#4AA8E8", "solid", "square", "■", ""),
    ("#CC79A7", "#CC79A7", "9px,3px,2px,3px", "diamond", "◆", "x"),
    ("#E69F00", "#E69F00", "12px,3px", "star", "★", "\\"),
    ("#56B4E9", "#56B4E9", "4px,2px", "triangle-down", "▼", "-"),
    ("#B8AD1C", "#F0E442", "8px,2px,2px,2px", "cross", "✚", "|"),
]


def run_styles(roles: Mapping[str, str]) -> dict[str, RunStyle]:
    """The style of each run.

    Args:
        roles: ``'baseline'``, ``'teacher'`` or ``'run'`` by the run's name.
    """
    styles, used = {}, 0
    for index, (name, role) in enumerate(roles.items()):
        style = _ROLE_STYLES.get(role)
        if style is None:
            style, used = _RUN_STYLES[used % len(_RUN_STYLES)], used + 1
        styles[name] = RunStyle(index, *style)
    return styles


@dataclass(frozen=True)
class Chart:
    """A figure of the page.

    Args:
        key: Unique in the page.
        title: Above the figure.
        description: What it shows, in words, for whoever does not see it.
        figure: Without colours: the page gives each trace that of the run in its ``meta``.
        height: In pixels.
        wide: Takes a whole row of the page.
    """

    key: str
    title: str
    description: str
    figure: go.Figure
    height: int = 250
    wide: bool = False

    @property
    def rows(self) -> int:
        """Rows of ordinary charts that it is as high as."""
        return round(self.height / 290 + 0.4)

    def as_json(self) -> dict[str, Any]:
        """What the browser needs of the figure, as plain values."""
        return json.loads(self.figure.to_json(engine="json"))


def _figure(traces: Iterable[Any], **layout: Any) -> go.Figure:
    # Plotly's own template would add 7 kB to each chart.
    figure = go.Figure(layout=dict(template="none"))
    figure.add_traces(list(traces))
    figure.update_layout(template=None, showlegend=False, **layout)
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def _plain(text: str) -> str:
    """Text that plotly shows as it is, and does not take for its markup."""
    return html.escape(text, quote=False)


def _short(name: str) -> str:
    """A run's name where there is little room."""
    return _plain(name if len(name) <= 22 else f"{name[:10]}…{name[-11:]}")


def _rounded(values: Iterable[float], digits: int = 4) -> list[float | None]:
    return [float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in values]


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "undefined"


def _of_run(name: str, style: RunStyle) -> dict[str, Any]:
    return dict(name=_plain(name), meta=dict(run=style.index))


def _spread(scores: Sequence[Score]) -> dict[str, Any]:
    """Error bars: the standard deviations of the seeds."""
    spreads = [np.nan if score.spread is None else score.spread for score in scores]
    return dict(type="data", array=_rounded(spreads), thickness=1.5, width=4)


# Curves of the training.


def curve_charts(
    work_dirs: Sequence[WorkDir], styles: Mapping[str, RunStyle], group: str
) -> list[Chart]:
    """One chart for each curve of a group, with a line for each run.

    Args:
        work_dirs: Runs of one name are seeds, and drawn alike.
        styles: By the runs' names.
        group: See :class:`mmkd.work_dirs.Curve`.
    """
    lines: dict[tuple[str, str], list[tuple[WorkDir, list[tuple[float, float]]]]] = {}
    for work_dir in work_dirs:
        for curve in work_dir.curves:
            if curve.group == group and curve.points:
                key = (curve.name, curve.step)
                lines.setdefault(key, []).append((work_dir, curve.points))
    counts = Counter(name for name, _ in lines)
    return [
        Chart(
            f"{group.replace(' ', '-')}-{index}",
            name if counts[name] == 1 else f"{name} by {step}",
            _describe_curves(name, step, of_curve),
            _figure(
                [_curve(work_dir, points, step, styles) for work_dir, points in of_curve],
                xaxis=dict(title=step),
                yaxis=dict(rangemode="tozero"),
            ),
        )
        for index, ((name, step), of_curve) in enumerate(lines.items())
    ]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most :data:`MAX_POINTS`, evenly, the first and the last among them."""
    if len(points) <= MAX_POINTS:
        return list(points)
    return [points[i] for i in np.linspace(0, len(points) - 1, MAX_POINTS).round().astype(int)]


def _curve(
    work_dir: WorkDir,
    points: Sequence[tuple[float, float]],
    step: str,
    styles: Mapping[str, RunStyle],
) -> go.Scatter:
    style, kept = styles[work_dir.name], _thinned(points)
    seed = "" if work_dir.seed is None else f", seed {work_dir.seed}"
    few = len(kept) <= 30
    return go.Scatter(
        **_of_run(f"{work_dir.name}{seed}", style),
        x=_rounded((x for x, _ in kept), 9),
        y=_rounded(y for _, y in kept),
        mode="lines+markers" if few else "lines",
        line=dict(width=1.4, dash=style.dash),
        marker=dict(symbol=style.symbol, size=5),
        hovertemplate=f"%{{y:.4g}}<br>{step} %{{x}}<extra>%{{fullData.name}}</extra>",
    )


def _describe_curves(
    name: str, step: str, lines: Sequence[tuple[WorkDir, Sequence[tuple[float, float]]]]
) -> str:
    ends: dict[str, list[tuple[float, float]]] = {}
    for work_dir, points in lines:
        ends.setdefault(work_dir.name, []).append((points[0][1], points[-1][1]))
    means = {run: np.mean(values, axis=0) for run, values in ends.items()}
    texts = [
        f"{run} from {_number(first)} to {_number(last)}" for run, (first, last) in means.items()
    ]
    return f"Line chart of {name} by {step}: {'; '.join(texts)}."


# Charts of the evaluation.


def score_chart(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Chart:
    """mAP of each run, and of its seeds."""
    groups = comparison.groups
    traces: list[Any] = []
    for row, group in enumerate(groups):
        style, score = styles[group.name], group.metrics["mAP"]
        if len(score.values) > 1:
            traces.append(
                go.Scatter(
                    **_of_run(group.name, style),
                    x=_rounded(score.values),
                    y=[row] * len(score.values),
                    mode="markers",
                    marker=dict(symbol="line-ns-open", size=16),
                    opacity=0.6,
                    hovertemplate="one seed: %{x:.1f}<extra>%{fullData.name}</extra>",
                )
            )
        traces.append(
            go.Scatter(
                **_of_run(group.name, style),
                x=_rounded([score.mean]),
                y=[row],
                mode="markers+text",
                marker=dict(symbol=style.symbol, size=12),
                text=[f"{score.mean:.1f}" if np.isfinite(score.mean) else ""],
                textposition="top center",
                hovertemplate="mAP %{x:.1f}<extra>%{fullData.name}</extra>",
            )
        )
    return Chart(
        "map",
        "mAP of each run",
        "Points: " + "; ".join(f"{g.name} {_number(g.metrics['mAP'].mean)} mAP" for g in groups),
        _figure(
            traces,
            xaxis=dict(title="mAP, %", rangemode="tozero"),
            yaxis=dict(
                tickvals=list(range(len(groups))),
                ticktext=[_short(group.name) for group in groups],
                range=[len(groups) - 0.6, -0.6],
                zeroline=False,
            ),
        ),
        height=90 + 58 * len(groups),
    )


def difference_chart(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Chart | None:
    """How far each run is from the baseline in every metric."""
    groups = [g for g in comparison.groups if g.differences]
    if not groups:
        return None
    names = list(groups[0].differences)
    traces = []
    for group in groups:
        found = list(group.differences.values())
        style = styles[group.name]
        traces.append(
            go.Scatter(
                **_of_run(group.name, style),
                x=_rounded(e.value for e in found),
                y=names,
                error_x=dict(
                    type="data",
                    symmetric=False,
                    array=_rounded(e.high - e.value for e in found),
                    arrayminus=_rounded(e.value - e.low for e in found),
                    thickness=1.5,
                    width=3,
                ),
                mode="markers",
                marker=dict(symbol=style.symbol, size=9),
                hovertemplate="%{y}: %{x:+.1f}<extra>%{fullData.name}</extra>",
            )
        )
    return Chart(
        "differences",
        f"Difference to {comparison.baseline}, with 95% intervals",
        f"Points with intervals of every metric's difference to {comparison.baseline}. "
        + "The table 'Scores' has the same numbers.",
        _figure(
            traces,
            xaxis=dict(title="points"),
            yaxis=dict(type="category", autorange="reversed"),
            scattermode="group",
        ),
        height=80 + 14 * len(names) * max(2, len(groups)),
    )


def precision_charts(comparison: Comparison, styles: Mapping[str, RunStyle]) -> list[Chart]:
    """Precision by recall at some IoUs, and average precision by IoU."""
    curves = {g.name: g.mean_precision for g in comparison.groups}
    charts = [
        _precision_at(int(np.argmin(abs(IOUS - iou))), iou, curves, styles) for iou in SHOWN_IOUS
    ]
    by_iou = {name: curve.mean(axis=1) for name, curve in curves.items()}
    traces = [
        go.Scatter(
            **_of_run(name, styles[name]),
            x=_rounded(IOUS),
            y=_rounded(values),
            mode="lines+markers",
            line=dict(width=2, dash=styles[name].dash),
            marker=dict(symbol=styles[name].symbol, size=6),
            hovertemplate="AP %{y:.1f} at IoU %{x:.2f}<extra>%{fullData.name}</extra>",
        )
        for name, values in by_iou.items()
    ]
    texts = [f"{name} from {_number(v[0])} to {_number(v[-1])}" for name, v in by_iou.items()]
    charts.append(
        Chart(
            "ap-by-iou",
            "Average precision by IoU",
            f"Lines from IoU 0.50 to 0.95: {'; '.join(texts)}.",
            _figure(
                traces,
                xaxis=dict(title="IoU that counts as found"),
                yaxis=dict(title="AP, %", rangemode="tozero"),
            ),
        )
    )
    return charts


def _precision_at(
    index: int,
    iou: float,
    curves: Mapping[str, NDArray[np.float64]],
    styles: Mapping[str, RunStyle],
) -> Chart:
    traces = [
        go.Scatter(
            **_of_run(name, styles[name]),
            x=_rounded(RECALLS * 100),
            y=_rounded(curve[index], 3),
            mode="lines",
            line=dict(width=2, dash=styles[name].dash),
            hovertemplate="precision %{y:.0f}% at recall %{x:.0f}%<extra>%{fullData.name}</extra>",
        )
        for name, curve in curves.items()
    ]
    texts = [f"{name} {_number(curve[index].mean())}" for name, curve in curves.items()]
    return Chart(
        f"precision-{round(100 * iou)}",
        f"Precision by recall, IoU {iou:.2f}",
        f"Lines, mean over classes; the areas below them: {'; '.join(texts)}.",
        _figure(
            traces,
            xaxis=dict(title="recall, %", range=[0, 101]),
            yaxis=dict(title="precision, %", range=[0, 102]),
        ),
    )


def _bars(
    groups: Sequence[GroupResult],
    styles: Mapping[str, RunStyle],
    labels: Sequence[str],
    values: Sequence[Sequence[float]],
    spreads: Sequence[Mapping[str, Any]] | None = None,
    horizontal: bool = False,
    digits: int = 1,
) -> list[go.Bar]:
    """One bar a label for each run."""
    texts, lengths = ("y", "x") if horizontal else ("x", "y")
    bars = []
    for index, (group, of_group) in enumerate(zip(groups, values, strict=True)):
        style = styles[group.name]
        bar = go.Bar(
            **_of_run(group.name, style),
            **{texts: [_plain(label) for label in labels], lengths: _rounded(of_group)},
            orientation="h" if horizontal else "v",
            marker=dict(pattern=dict(shape=style.pattern, size=6, solidity=0.25)),
            hovertemplate=f"%{{{texts}}}: %{{{lengths}:.{digits}f}}"
            "<extra>%{fullData.name}</extra>",
        )
        if spreads is not None:
            bar[f"error_{lengths}"] = spreads[index]
        bars.append(bar)
    return bars


def class_chart(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Chart:
    """AP of each class; of many, those in which the runs differ most."""
    groups = comparison.groups
    means = {
        name: [group.classes[name].mean for group in groups]
        for name in comparison.annotations.category_names
    }
    names = [name for name, values in means.items() if np.isfinite(values).any()]
    shown = names
    if len(names) > MAX_CLASSES:
        shown = sorted(names, key=lambda name: -np.ptp(means[name]))[:MAX_CLASSES]
    some = f", the {MAX_CLASSES} of {len(names)} that differ most" if shown is not names else ""
    bars = _bars(
        groups,
        styles,
        shown,
        [[means[name][index] for name in shown] for index in range(len(groups))],
        horizontal=True,
    )
    return Chart(
        "classes",
        f"AP by class{some}",
        f"Bars of average precision by class{some}. The table 'Classes' has all numbers.",
        _figure(
            bars,
            xaxis=dict(title="AP, %", rangemode="tozero"),
            yaxis=dict(type="category", autorange="reversed"),
            bargap=0.25,
        ),
        height=80 + len(shown) * (10 + 9 * len(groups)),
        wide=len(shown) > MAX_CLASSES // 2,
    )


def size_chart(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Chart | None:
    """AP by the area ranges of the settings."""
    areas = [name for name in comparison.settings.areas if name != "all"]
    groups = comparison.groups
    if not areas:
        return None
    scores = [[group.metrics[f"AP_{area}"] for area in areas] for group in groups]
    texts = [
        f"{group.name} "
        + ", ".join(f"{a} {_number(s.mean)}" for a, s in zip(areas, of_group, strict=True))
        for group, of_group in zip(groups, scores, strict=True)
    ]
    bars = _bars(
        groups,
        styles,
        areas,
        [[score.mean for score in of_group] for of_group in scores],
        [_spread(of_group) for of_group in scores],
    )
    return Chart(
        "sizes",
        "AP by object size",
        f"Bars of average precision by object size: {'; '.join(texts)}.",
        _figure(bars, xaxis=dict(type="category"), yaxis=dict(title="AP, %", rangemode="tozero")),
    )


def error_charts(comparison: Comparison, styles: Mapping[str, RunStyle]) -> list[Chart]:
    """How many errors of each type there are, and what they cost."""
    charts = []
    for which, (key, title, axis) in enumerate(
        [
            ("errors", "Errors by type, count", "errors"),
            ("costs", "What the errors of a type cost", "AP50 points"),
        ]
    ):
        values = [[g.errors[name][which] for name in ERROR_TYPES] for g in comparison.groups]
        charts.append(
            Chart(
                key,
                title,
                f"Bars of {axis} by type of error. The table 'Errors' has the same numbers.",
                _figure(
                    _bars(
                        comparison.groups,
                        styles,
                        ERROR_TYPES,
                        values,
                        horizontal=True,
                        digits=which,
                    ),
                    xaxis=dict(title=axis, rangemode="tozero"),
                    yaxis=dict(type="category", autorange="reversed"),
                ),
            )
        )
    return charts


def tradeoff_charts(comparison: Comparison, styles: Mapping[str, RunStyle]) -> list[Chart]:
    """mAP against the number of parameters and against the time of a training step."""
    groups = comparison.groups
    sizes = {g.name: g.parameters / 1e6 for g in groups if g.parameters is not None}
    times = {g.name: g.step_seconds * 1e3 for g in groups if g.step_seconds is not None}
    charts = []
    for key, title, axis, values in (
        ("parameters", "mAP against parameters", "million parameters", sizes),
        ("step-time", "mAP against training time", "milliseconds a step", times),
    ):
        if values:
            charts.append(_tradeoff(key, title, axis, values, comparison, styles))
    return charts


def _tradeoff(
    key: str,
    title: str,
    axis: str,
    values: Mapping[str, float],
    comparison: Comparison,
    styles: Mapping[str, RunStyle],
) -> Chart:
    traces, texts = [], []
    # Students are often of one size: names that would meet go up and down in turn.
    by_score = sorted(values, key=lambda name: -comparison.group(name).metrics["mAP"].mean)
    for name, value in values.items():
        style, score = styles[name], comparison.group(name).metrics["mAP"]
        texts.append(f"{name} {_number(score.mean)} mAP with {_number(value)} {axis}")
        traces.append(
            go.Scatter(
                **_of_run(name, style),
                x=_rounded([value]),
                y=_rounded([score.mean]),
                error_y=_spread([score]),
                mode="markers+text",
                marker=dict(symbol=style.symbol, size=11),
                text=[_short(name)],
                textposition="bottom right" if by_score.index(name) % 2 else "top right",
                cliponaxis=False,
                hovertemplate=f"mAP %{{y:.1f}}<br>%{{x:.4g}} {axis}"
                "<extra>%{fullData.name}</extra>",
            )
        )
    return Chart(
        key,
        title,
        f"Points: {'; '.join(texts)}.",
        _figure(
            traces,
            xaxis=dict(title=axis, range=[0, 1.35 * max(values.values())]),
            yaxis=dict(title="mAP, %", rangemode="tozero"),
        ),
    )
