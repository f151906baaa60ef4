"""An examination as people read it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from mmkd.doctor.advice import Advice
from mmkd.doctor.examination import Costs, Examination, TermFinding
from mmkd.doctor.level_map import LevelMap

__all__ = ["print_examination", "print_levels"]

# Pairs of levels.
_PROPOSED = 3
_STYLES = {"error": "bold red", "warning": "yellow"}


def print_examination(found: Examination, advice: Sequence[Advice], console: Console) -> None:
    """Terms, teachers and costs; then the advice, or that there is none."""
    console.print(_terms(found))
    for teacher in found.teachers:
        loss = "" if teacher.loss is None else f"; its own loss here {teacher.loss:.3g}"
        student = _or_dash(found.student_loss, ".3g")
        student = f" (the student's before training {student})" if loss else ""
        accuracy = ""
        if teacher.accuracy is not None:
            accuracy = f"; {teacher.accuracy:.1f}% on {teacher.images} validation images"
        console.print(Text(f"{teacher.introduction}{loss}{student}{accuracy}"))
    console.print(_costs(found))
    if not advice:
        console.print(Text("Nothing to change.", style="green"))
    for each in advice:
        console.print(
            Group(Text.assemble((each.level, _STYLES[each.level]), f": {each.about}: {each.text}"))
        )


def _terms(found: Examination) -> Table:
    table = Table(title="Terms", title_justify="left")
    for heading in ("term", "student", "teacher"):
        table.add_column(heading, overflow="fold")
    for heading in ("samples", "distance", "weight", "share", "cosine"):
        table.add_column(heading, justify="right")
    for term in found.terms:
        table.add_row(
            term.name,
            f"{term.student} {_shapes(term.student_shapes)}",
            f"{term.teacher} {_shapes(term.teacher_shapes)}",
            *_numbers(term),
        )
    return table


def _numbers(term: TermFinding) -> list[str]:
    return [
        _or_dash(term.samples, "d"),
        _or_dash(term.distance, ".3g"),
        _or_dash(term.weight, ".3g"),
        _or_dash(term.share, ".0%"),
        _or_dash(term.cosine, "+.2f"),
    ]


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return " ".join("x".join(map(str, shape)) for shape in shapes)


def _costs(found: Examination) -> Text:
    ratio = found.distilled.seconds / found.plain.seconds
    share = (
        f", {found.teacher_share:.0%} of it the teacher's"
        if found.teacher_share is not None
        else ""
    )
    return Text(
        f"A step: {_cost(found.plain)} alone, {_cost(found.distilled)} distilled "
        f"({ratio:.2f} times{share}). Over {found.iterations:,} iterations: "
        f"{found.extra_hours:+.1f} hours."
    )


def _cost(costs: Costs) -> str:
    memory = "" if costs.peak_bytes is None else f", {costs.peak_bytes / 2**30:.1f} GiB"
    return f"{costs.seconds * 1000:.0f} ms{memory}"


def print_levels(found: LevelMap, console: Console) -> None:
    """A row a student's level, a column a teacher's; then where the teacher knows most more."""
    table = Table(title="Linear CKA of student (rows) and teacher", title_justify="left")
    for heading in ("", *found.teacher, "probe"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, row, probe in zip(found.student, found.cka, found.student_probe, strict=True):
        table.add_row(name, *(_or_dash(value, ".2f") for value in row), _or_dash(probe, ".0%"))
    table.add_row("probe", *(_or_dash(each, ".0%") for each in found.teacher_probe), "")
    console.print(table)
    console.print(
        Text("Probe: what a linear map of a level explains of the classes at its locations.")
    )
    known = [
        (lead, index) for index, lead in enumerate(found.leads) if lead is not None and lead > 0
    ]
    if not known:
        console.print(Text("No level of the teacher is known to tell more than the student's."))
    for lead, index in sorted(known, reverse=True)[:_PROPOSED]:
        ours, theirs = found.student[index], found.teacher[found.own[index]]
        console.print(Text(f"{ours} from {theirs}: {lead:+.0%}"))
