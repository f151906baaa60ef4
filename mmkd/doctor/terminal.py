"""An examination as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from mmkd.doctor.advice import Advice
from mmkd.doctor.examination import Examination
from mmkd.doctor.level_map import LevelMap
from mmkd.doctor.wording import TERM_HEADINGS, or_dash, sentences, term_row

__all__ = ["print_examination", "print_levels"]

# Pairs of levels.
_PROPOSED = 3
_STYLES = {"error": "bold red", "warning": "yellow"}


def print_examination(found: Examination, advice: Sequence[Advice], console: Console) -> None:
    """Terms, teachers and costs; then the advice, or that there is none."""
    table = Table(title="Terms", title_justify="left")
    for heading in TERM_HEADINGS:
        is_name = heading in ("term", "student", "teacher")
        table.add_column(
            heading,
            overflow="fold" if is_name else "ellipsis",
            justify="left" if is_name else "right",
        )
    for term in found.terms:
        table.add_row(*term_row(term))
    console.print(table)
    for sentence in sentences(found):
        console.print(Text(sentence))
    if not advice:
        console.print(Text("Nothing to change.", style="green"))
    for each in advice:
        console.print(
            Group(Text.assemble((each.level, _STYLES[each.level]), f": {each.about}: {each.text}"))
        )


def print_levels(found: LevelMap, console: Console) -> None:
    """A row a student's level, a column a teacher's; then where the teacher knows most more."""
    table = Table(title="Linear CKA of student (rows) and teacher", title_justify="left")
    for heading in ("", *found.teacher, "probe"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, row, probe in zip(found.student, found.cka, found.student_probe, strict=True):
        table.add_row(name, *(or_dash(value, ".2f") for value in row), or_dash(probe, ".0%"))
    table.add_row("probe", *(or_dash(each, ".0%") for each in found.teacher_probe), "")
    console.print(table)
    console.print(
        Text("Probe: what a linear map of a level explains of the classes at its locations.")
    )
    if not found.proposals:
        console.print(Text("No level of the teacher is known to tell more than the student's."))
    for each in found.proposals[:_PROPOSED]:
        text = f"{each['student']} from {each['teacher']}: {each['lead']:+.0%}"
        console.print(Text(text))
