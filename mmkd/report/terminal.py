"""Tables for the terminal, and the same as Markdown."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.box import HEAVY_HEAD, MARKDOWN, Box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from mmkd.evaluation.comparison import Comparison
from mmkd.report.sentences import conclusions
from mmkd.report.tables import Cell, Table, comparison_tables

__all__ = ["bullets", "markdown_table", "markdown_tables", "rich_table"]


def rich_table(table: Table) -> RichTable:
    """A table for :meth:`rich.console.Console.print`."""
    headings, rows = _texts(table)
    return _rich(headings, rows, HEAVY_HEAD, title=escape(table.title), title_justify="left")


def markdown_table(table: Table) -> str:
    """A table's lines in Markdown, without its title."""
    headings, rows = _texts(table)
    escaped = [[text.replace("|", "\\|") for text in row] for row in (headings, *rows)]
    stream = io.StringIO()
    # Wide enough that no cell is broken.
    console = Console(file=stream, width=100_000, color_system=None)
    console.print(_rich(escaped[0], escaped[1:], MARKDOWN))
    return "\n".join(line.rstrip() for line in stream.getvalue().strip().splitlines())


def markdown_tables(comparison: Comparison, *, classes: bool = True) -> str:
    """The tables of a comparison for a README, and the conclusions.

    Args:
        comparison: What to show.
        classes: Include the table by class.
    """
    tables = [
        f"**{table.title}**\n\n{markdown_table(table)}"
        for table in comparison_tables(comparison, classes=classes)
    ]
    return "\n\n".join([*tables, *conclusions(comparison)]) + "\n"


def bullets(sentences: Sequence[str]) -> list[str]:
    """Lines of a list in Markdown."""
    return [f"- {sentence}" for sentence in sentences]


def _texts(table: Table) -> tuple[list[str], list[list[str]]]:
    """Headings and rows."""
    headings = [column.short or column.heading for column in table.columns]
    return headings, [[_text(cell) for cell in row] for row in table.rows]


def _text(cell: Cell) -> str:
    return f"{cell.text} [{', '.join(cell.ends)}]" if cell.ends else cell.text


def _rich(
    headings: Sequence[str], rows: Sequence[Sequence[str]], box: Box, **looks: str
) -> RichTable:
    table = RichTable(box=box, **looks)  # type: ignore[arg-type]
    for index, heading in enumerate(headings):
        table.add_column(escape(heading), justify="right" if index else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
