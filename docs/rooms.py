"""The rooms of the package: lines, imports between them, circles. Of this checkout or a revision.

uv run python docs/rooms.py            # as it stands
uv run python docs/rooms.py v0.1.0     # of any revision that git knows
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Annotated

import networkx
import typer
from grimp import ImportGraph, build_graph
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

PACKAGE = "mmkd"
ROOT = Path(__file__).parents[1]


def room_of(module: str) -> str:
    """A folder of the package, or a file beside them."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else PACKAGE


def lines_of(root: Path) -> Counter[str]:
    """Lines of Python by room."""
    found: Counter[str] = Counter()
    for file in (root / PACKAGE).rglob("*.py"):
        parts = file.relative_to(root / PACKAGE).with_suffix("").parts
        room = PACKAGE if parts == ("__init__",) else parts[0]
        found[room] += len(file.read_text("utf-8").splitlines())
    return found


def imports_between(graph: ImportGraph) -> dict[tuple[str, str], int]:
    """How many modules of one room import how many of another, those inside functions included."""
    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            pair = room_of(module), room_of(imported)
            if pair[0] != pair[1]:
                found[pair] += 1
    return found


def circles(graph: ImportGraph) -> list[list[str]]:
    """Modules that import each other, whether directly or by others."""
    edges = [(m, n) for m in graph.modules for n in graph.find_modules_directly_imported_by(m)]
    components = networkx.strongly_connected_components(networkx.DiGraph(edges))
    return sorted(sorted(component) for component in components if len(component) > 1)


def table(lines: Counter[str], arrows: dict[tuple[str, str], int]) -> Table:
    """A row a room, the largest first."""
    total = sum(lines.values())
    found = Table("room", "lines", "share", "imports from", box=MARKDOWN)
    for column in found.columns[1:3]:
        column.justify = "right"
    for room, count in lines.most_common():
        used = sorted(target for source, target in arrows if source == room)
        found.add_row(room, f"{count:,}", f"{count / total:.0%}", ", ".join(used))
    return found


def main(
    revision: Annotated[
        str | None, typer.Argument(help="Of git; none: the files as they are.")
    ] = None,
) -> None:
    """Print a table of the rooms and the circles among the files."""
    with tempfile.TemporaryDirectory() as folder:
        root = ROOT
        if revision is not None:
            root = Path(folder)
            archive = ["git", "-C", str(ROOT), "archive", revision, PACKAGE]
            content = subprocess.run(archive, check=True, capture_output=True).stdout
            with tarfile.open(fileobj=BytesIO(content)) as files:
                files.extractall(root, filter="data")
        sys.path.insert(0, str(root))
        graph = build_graph(PACKAGE, cache_dir=None)
        lines, arrows = lines_of(root), imports_between(graph)
        Console(width=150).print(table(lines, arrows))
        print(f"\n{lines.total():,} lines, {len(arrows)} arrows between rooms")
        mutual = [f"{a} <-> {b}" for a, b in sorted(arrows) if a < b and (b, a) in arrows]
        print(f"{len(mutual)} pairs of rooms that import each other", *mutual, sep="\n- ")
        found = [" <-> ".join(circle) for circle in circles(graph)]
        print(f"{len(found)} circles among files", *found, sep="\n- ")


if __name__ == "__main__":
    typer.run(main)
