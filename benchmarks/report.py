"""What every benchmark does with its figures: print a table, write JSON, fill a marked block of a page.

A block lies between ``<!-- figures:NAME:begin -->`` and ``<!-- figures:NAME:end -->``; all of it is replaced: no figure in a
page is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Grid:
    """A titled table of ready-made cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_markdown(self) -> str:
        lines = ["| " + " | ".join(self.columns) + " |", "|" + " --- |" * len(self.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return f"**{self.title}**\n\n" + "\n".join(lines) + "\n"

    def to_rich(self) -> Table:
        table = Table(*self.columns, title=self.title)
        for row in self.rows:
            table.add_row(*row)
        return table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every benchmark takes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--fill", type=Path, metavar="PAGE", help="also put the tables into this page's marked block")
    parser.add_argument("--quick", action="store_true", help="fewer runs: to see that it works, not to quote")


def fill(page: Path, block: str, text: str) -> None:
    """Replace the content of one block of a page. Raises ``ValueError`` when the page has no such block."""
    begin, end = f"<!-- figures:{block}:begin -->", f"<!-- figures:{block}:end -->"
    content = page.read_text("utf-8")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(content):
        raise ValueError(f"{page} has no block {begin}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text.strip()}\n{end}", content), "utf-8")


def publish(arguments: argparse.Namespace, block: str, grids: Sequence[Grid], figures: object) -> None:
    """Print the grids; write JSON and fill the page where asked to."""
    console = Console()
    for grid in grids:
        console.print(grid.to_rich())
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    if arguments.fill:
        fill(arguments.fill, block, "\n".join(grid.to_markdown() for grid in grids))
