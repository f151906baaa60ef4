"""Figures of a comparison: pictures for a README, and the same as SVG in the report's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mmkd.errors import InputError
from mmkd.evaluation.comparison import Comparison
from mmkd.report.figures.canvas import write_picture
from mmkd.report.figures.classes import class_plot
from mmkd.report.figures.lines import (
    cost_plot,
    difference_plot,
    iou_plot,
    precision_recall_plot,
)
from mmkd.report.figures.panels import Panel, Plot
from mmkd.report.figures.summaries import error_plot, score_plot, size_plot
from mmkd.report.style import RunStyle, group_styles

__all__ = ["PICTURES", "draw_pictures", "headline_panel", "page_panels"]

PICTURES: dict[str, Callable[[Comparison, Mapping[str, RunStyle]], Plot | None]] = {
    "precision_recall.png": precision_recall_plot,
    "classes.png": class_plot,
    "sizes.png": size_plot,
    "errors.png": error_plot,
    "cost.png": cost_plot,
}
# More bars would hide the page's other figures; its table has all classes.
PAGE_BARS = 80
PAGE_CLASSES = 20


def draw_pictures(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Draws every picture for which the comparison has values.

    Args:
        comparison: What to draw.
        folder: Made where it is missing. Files called as :data:`PICTURES` in it are replaced.

    Returns:
        The files that were written.

    Raises:
        InputError: ``folder`` is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder for the figures, found a file")
    folder.mkdir(parents=True, exist_ok=True)
    styles = group_styles(comparison.groups)
    found = {folder / name: plot_of(comparison, styles) for name, plot_of in PICTURES.items()}
    plots = {file: plot for file, plot in found.items() if plot is not None}
    for file, plot in plots.items():
        write_picture(plot, file)
    return list(plots)


def headline_panel(comparison: Comparison, styles: Mapping[str, RunStyle]) -> Panel | None:
    """The one figure that the page begins with: the runs' mAP."""
    plot = score_plot(comparison, styles)
    return plot.panels[0] if plot is not None else None


def page_panels(comparison: Comparison, styles: Mapping[str, RunStyle]) -> dict[str, list[Panel]]:
    """The figures of an evaluation, by what they are about; nothing that has no values.

    Args:
        comparison: What to draw.
        styles: Of its runs, in their order.
    """
    classes = min(PAGE_CLASSES, PAGE_BARS // len(styles))
    groups: dict[str, list[Plot | None]] = {
        "scores": [difference_plot(comparison, styles)],
        "classes": [class_plot(comparison, styles, max(classes, 2))],
        "errors": [error_plot(comparison, styles)],
        "sizes": [size_plot(comparison, styles)],
        "precision": [precision_recall_plot(comparison, styles), iou_plot(comparison, styles)],
        "cost": [cost_plot(comparison, styles)],
    }
    found = {
        about: [panel for plot in plots if plot is not None for panel in plot.panels]
        for about, plots in groups.items()
    }
    return {about: panels for about, panels in found.items() if panels}
