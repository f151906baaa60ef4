"""What finished runs came to: ``results.md``, ``results.json`` and ``report.html``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from mmkd.errors import InputError
from mmkd.evaluation.comparison import Comparison
from mmkd.output_files import check_output, write_text
from mmkd.report.exports import as_json
from mmkd.report.inputs import ReportInputs, compare_inputs, read_inputs
from mmkd.report.page import check_out as check_report
from mmkd.report.page import write_page
from mmkd.report.sentences import conclusions
from mmkd.report.tables import result_table
from mmkd.report.terminal import bullets, markdown_table, markdown_tables
from mmkd.work_dirs.environment import describe_environment
from mmkd.work_dirs.run_result import RunResult, is_finished

__all__ = ["ComparedResults", "check_out", "compare_results", "score_lines", "write_results"]

TABLES, RESULTS, REPORT = "results.md", "results.json", "report.html"


@dataclass(frozen=True, eq=False)
class ComparedResults:
    """Finished runs, compared once for all that is written of them.

    Args:
        results: Of the runs.
        inputs: What their work dirs hold.
        comparison: Of their detections with those of the runs named ``plain``; None where there
            are none, as of classifiers.
    """

    results: Sequence[RunResult]
    inputs: ReportInputs
    comparison: Comparison | None


def compare_results(results: Sequence[RunResult], *, resamples: int = 1000) -> ComparedResults:
    """Compares the detections of runs with those named ``plain``.

    Args:
        results: Of runs whose work dirs are there.
        resamples: Of the bootstrap; 0 leaves the intervals out.

    Raises:
        InputError: A work dir that cannot be read, or runs on different annotations.
    """
    names = {Path(result.work_dir): result.name for result in results}
    inputs = read_inputs(list(names), names=names)
    return ComparedResults(results, inputs, compare_inputs(inputs, resamples=resamples))


def score_lines(compared: ComparedResults) -> list[str]:
    """Lines of Markdown: the table of the scores, and what they say."""
    comparison = compared.comparison
    table = markdown_table(result_table(compared.results, comparison)).splitlines()
    said = bullets(conclusions(comparison)) if comparison else []
    return [*table, "", *said]


def check_out(out: Path, pictures: Sequence[str] = ()) -> None:
    """Makes sure that :func:`write_results` will replace only what it has written before.

    Args:
        out: Its folder.
        pictures: Names of files that are written there too.

    Raises:
        InputError: It would replace something else.
    """
    check_report(out / REPORT)
    files = [out / name for name in (TABLES, RESULTS, *pictures)]
    for file in files:
        check_output(file)
    found = [file for file in files if file.exists()]
    # They are written after the runs next to them.
    if found and not any(map(is_finished, out.iterdir())):
        raise InputError(
            f"{', '.join(map(str, found))}: not of a comparison of mmkd's, whose runs would lie "
            "in the same folder, and not overwritten: choose another folder, or move it away"
        )


def write_results(
    compared: ComparedResults, out: Path, *, title: str, notes: Sequence[str] = ()
) -> Path:
    """Writes ``results.md``, ``results.json`` and ``report.html``; prints the main table.

    Args:
        compared: Finished runs.
        out: Folder.
        title: Of the results.
        notes: Sentences below the table.

    Returns:
        The report.
    """
    results, comparison = compared.results, compared.comparison
    found = [*compared.inputs.warnings, *notes]
    summary = [f"# {title}", "", *score_lines(compared), *bullets(found)]
    details = markdown_tables(comparison).splitlines() if comparison else []
    checkpoints = bullets([f"{r.name}, seed {r.seed}: {r.checkpoint}" for r in results])
    environment = bullets([f"{key}: {value}" for key, value in describe_environment().items()])
    lines = [*summary, "", *details, "", *checkpoints, "", *environment, ""]
    write_text(out / TABLES, "\n".join(lines))
    content = dict(
        runs=[asdict(result) for result in results], comparison=comparison and as_json(comparison)
    )
    write_text(out / RESULTS, json.dumps(content, indent=2) + "\n")
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    console.print(Markdown("\n".join(summary)))
    return write_page(compared.inputs, comparison, out / REPORT)
