"""An examination in words and short numbers, for terminal and page alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmkd.doctor.examination import Costs, Examination, TermFinding

__all__ = ["TERM_HEADINGS", "or_dash", "sentences", "term_row"]

TERM_HEADINGS = (
    "term", "student", "teacher", "samples", "distance", "weight", "share", "cosine"
)  # fmt: skip


def term_row(term: TermFinding) -> list[str]:
    """What stands below :data:`TERM_HEADINGS`."""
    return [
        term.name,
        f"{term.student} {_shapes(term.student_shapes, term.size)}",
        f"{term.teacher} {_shapes(term.teacher_shapes, term.size)}",
        or_dash(term.samples, "d"),
        or_dash(term.distance, ".3g"),
        or_dash(term.weight, ".3g"),
        or_dash(term.share, ".0%"),
        or_dash(term.cosine, "+.2f"),
    ]


def sentences(found: Examination) -> Iterator[str]:
    """Each teacher, and what a step costs."""
    for teacher in found.teachers:
        loss = "" if teacher.loss is None else f"; its own loss here {teacher.loss:.3g}"
        student = or_dash(found.student_loss, ".3g")
        student = f" (the student's before training {student})" if loss else ""
        accuracy = ""
        if teacher.accuracy is not None:
            accuracy = f"; {teacher.accuracy:.1f}% on {teacher.images} validation images"
        yield f"{teacher.introduction}{loss}{student}{accuracy}"
    ratio = found.distilled.seconds / found.plain.seconds
    share = (
        f", {found.teacher_share:.0%} of it the teacher's"
        if found.teacher_share is not None
        else ""
    )
    yield (
        f"A step: {_cost(found.plain)} alone, {_cost(found.distilled)} distilled "
        f"({ratio:.2f} times{share}). Over {found.iterations:,} iterations: "
        f"{found.extra_hours:+.1f} hours."
    )


def or_dash(value: float | None, form: str) -> str:
    """A number, or that there is none."""
    return "-" if value is None else format(value, form)


def _shapes(shapes: Sequence[tuple[int, ...]], size: tuple[int, int] | None) -> str:
    return " ".join(_shape(shape, size) for shape in shapes)


def _shape(shape: tuple[int, ...], size: tuple[int, int] | None) -> str:
    """With the stride of a map."""
    sides = "x".join(map(str, shape))
    if size is None or len(shape) != 4:
        return sides
    return f"{sides} at {round(max(size[0] / shape[2], size[1] / shape[3]))}"


def _cost(costs: Costs) -> str:
    memory = "" if costs.peak_bytes is None else f", {costs.peak_bytes / 2**30:.1f} GiB"
    return f"{costs.seconds * 1000:.0f} ms{memory}"
