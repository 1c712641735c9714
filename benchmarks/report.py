"""What every benchmark does with its figures: print a table, write JSON, fill a marked block of a page.

A block lies between ``<!-- figures:NAME:begin -->`` and ``<!-- figures:NAME:end -->``; all of it is replaced: no figure in a
page is typed by hand.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

FILE_WIDTH = 200
"""Columns of what is printed into a file or a pipe, so that no figure is cut."""


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


def output(text: str) -> Path:
    """A file to write when the run is over, which may take half an hour: that it cannot be is said before."""
    path = Path(text)
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is no file in a folder that is there")
    return path


def picture(text: str) -> Path:
    """As ``output``, of what is drawn."""
    if find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("to draw needs an extra: pip install 'outrider[plot]'")
    return output(text)


def _page(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no page {path}")
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every benchmark takes."""
    parser.add_argument("--json", type=output, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument(
        "--fill", type=_page, nargs="+", default=[], metavar="PAGE", help="also put the tables into these pages' marked blocks"
    )
    parser.add_argument("--quick", action="store_true", help="fewer runs: to see that it works, not to quote")


def fill(page: Path, texts: Mapping[str, str]) -> None:
    """Replace the content of those blocks that the page has. Raises ``ValueError`` when it has none of them."""
    content = page.read_text("utf-8")
    found = {name: text for name, text in texts.items() if _begin(name) in content}
    if not found:
        raise ValueError(f"{page} has no block {' or '.join(map(_begin, texts))}")
    for name, text in found.items():
        content = _filled(content, name, text)
    page.write_text(content, "utf-8")


def _filled(content: str, name: str, text: str) -> str:
    begin, end = _begin(name), f"<!-- figures:{name}:end -->"
    filled, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{text.strip()}\n{end}", content, flags=re.DOTALL
    )
    if not count:
        raise ValueError(f"the block {begin} has no {end}")
    return filled


def _begin(name: str) -> str:
    return f"<!-- figures:{name}:begin -->"


def write_json(arguments: argparse.Namespace, figures: object) -> None:
    """Write the figures to the file that ``--json`` names, where it names one."""
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


def publish(arguments: argparse.Namespace, block: str, grids: Sequence[Grid], figures: object) -> None:
    """Print the grids; write JSON and fill the page's block where asked to."""
    publish_blocks(arguments, {block: grids}, figures)


def publish_blocks(arguments: argparse.Namespace, blocks: Mapping[str, Sequence[Grid]], figures: object) -> None:
    """As ``publish``, with several blocks: a page may have any of them."""
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    for grid in itertools.chain.from_iterable(blocks.values()):
        console.print(grid.to_rich())
    write_json(arguments, figures)
    for page in arguments.fill:
        fill(page, {name: "\n".join(grid.to_markdown() for grid in grids) for name, grids in blocks.items()})
