"""Bars of average precision by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes

from mmkd.evaluation.comparison import Comparison, GroupResult
from mmkd.report.figures.bars import (
    BAR,
    Bars,
    bar_handles,
    bars_of,
    draw_bars,
    row_label,
    row_pitch,
    with_values,
)
from mmkd.report.figures.panels import Panel, Plot
from mmkd.report.numbers import signed
from mmkd.report.style import RunStyle, run_label

__all__ = ["class_plot"]

# More classes than these take two columns of thinner bars.
COLUMN_CLASSES = 25
_THIN_BAR = 0.11


def class_plot(
    comparison: Comparison, styles: Mapping[str, RunStyle], limit: int = 120
) -> Plot | None:
    """Average precision by class.

    Classes are in the order of what the first run gains over the baseline, which is printed beside
    that run's bars; without a baseline, in the order of the mean over the runs.

    Args:
        comparison: What to draw.
        styles: Of its runs, in their order.
        limit: Of more classes, as many are shown from both ends of the order.

    Returns:
        None where no class has objects.
    """
    compared = next((g for n in styles if (g := comparison.group(n)).class_differences), None)
    names, some = _ends(_ranked_classes(comparison, compared), limit)
    if not names:
        return None
    columns, thickness = (1, BAR) if len(names) <= COLUMN_CLASSES else (2, _THIN_BAR)
    size = math.ceil(len(names) / columns)
    pitch = row_pitch(len(styles), map(row_label, names), thickness)
    panels = []
    for column in range(columns):
        shown = names[column * size : (column + 1) * size]
        bars = _class_bars(comparison, styles, compared, shown)
        draw = _drawing(shown, bars, thickness, pitch, size * pitch)
        about = f"Bars of average precision by class{f', {some}' if some else ''}. "
        about += "The table 'Classes' has all numbers."
        caption = _title(comparison, compared, str) + f": {some}" * bool(some)
        panels.append(Panel(f"classes-{column}", "", caption, about, size * pitch, draw))
    title = _title(comparison, compared, lambda name: f"“{run_label(name)}”")
    if compared and any(gain.has_interval for gain in compared.class_differences.values()):
        over = comparison.intervals_over
        title += f"\nbold: the gain's 95% interval over {over} excludes 0"
    title += f"\n{some}" * bool(some)
    return Plot(title, panels, bar_handles(comparison, styles), ("x",))


def _ends(names: list[str], limit: int) -> tuple[list[str], str]:
    """The names from both ends where there are more, and words for which these are."""
    if len(names) <= limit:
        return names, ""
    half = limit // 2
    some = f"the first and the last {half} of {len(names)} classes"
    return names[:half] + names[-half:], some


def _title(
    comparison: Comparison, compared: GroupResult | None, label: Callable[[str], str]
) -> str:
    if compared is None:
        return "AP by class"
    over = f"{label(compared.name)} over {label(str(comparison.baseline))}"
    return f"AP by class, in the order of the gain of {over}"


def _drawing(
    names: Sequence[str], bars: Sequence[Bars], thickness: float, pitch: float, height: float
) -> Callable[[Axes], None]:
    def draw(axis: Axes) -> None:
        draw_bars(axis, [row_label(name) for name in names], bars, thickness, pitch)
        # A column with fewer rows than the first is as high.
        axis.set(ylim=(height, 0), xlabel="AP (IoU 0.50:0.95), %")

    return draw


def _ranked_classes(comparison: Comparison, compared: GroupResult | None) -> list[str]:
    """The classes that have objects."""
    if compared is not None:
        keys = {name: gain.value for name, gain in compared.class_differences.items()}
    else:
        keys = {
            name: float(np.mean([group.classes[name].mean for group in comparison.groups]))
            for name in comparison.groups[0].classes
        }
    defined = [name for name, value in keys.items() if not math.isnan(value)]
    return sorted(defined, key=lambda name: -keys[name])


def _class_bars(
    comparison: Comparison,
    styles: Mapping[str, RunStyle],
    compared: GroupResult | None,
    names: Sequence[str],
) -> list[Bars]:
    """With the gains, or without a baseline the values, as notes."""
    bars = bars_of(comparison, styles, "classes", names)
    if compared is None:
        return with_values(bars)
    gains = [compared.class_differences[name] for name in names]
    notes = [signed(gain.value) for gain in gains]
    bold = [gain.is_clear for gain in gains]
    return [
        replace(each, notes=notes, bold=bold) if each.name == compared.name else each
        for each in bars
    ]
