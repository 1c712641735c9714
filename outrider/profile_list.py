"""`outrider profiles`: which phones, networks and cloud machines can be emulated, and where each of their figures is from."""

from __future__ import annotations

import json as json_format
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider import completing, options
from outrider.completing import KINDS
from speculation.errors import OutriderError, UnknownNameError
from speculation.shaping.catalogue import CLOUDS, NETWORKS, PHONES, Catalogue, Kind
from speculation.shaping.figures import Figure

BUNDLED = "bundled"
MAIN_FIGURES = {
    PHONES.folder: ("bandwidth", "bandwidth_utilisation", "compute", "memory"),
    NETWORKS.folder: ("uplink.rate", "uplink.delay", "downlink.rate", "downlink.delay"),
    CLOUDS.folder: ("bandwidth", "bandwidth_utilisation", "compute", "memory"),
}
"""What the table of a kind shows, by the names in the files."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A profile by name. ``origin`` is the user's file, or ``bundled``; ``error`` is why it cannot be used, else None."""

    kind: str
    name: str
    origin: str
    title: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        figures = {name: asdict(figure) | {"value": _finite(figure)} for name, figure in self.figures.items()}
        return {"kind": self.kind, "name": self.name, "origin": self.origin, "title": self.title, "error": self.error} | {
            "figures": figures
        }


def profiles_command(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="phones, networks or clouds; all by default.", autocompletion=completing.kinds),
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, figure by figure.", autocompletion=completing.profiles)
    ] = None,
    profiles: options.Profiles = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a profile and line.")] = False,
) -> None:
    """List the phones, networks and cloud machines that can be emulated; with NAME every figure of one, and its source."""
    catalogue = Catalogue(profiles)
    entries = list(_chosen(catalogue, kind, name))
    if json:
        for entry in entries:
            print(json_format.dumps(entry.to_json(), ensure_ascii=False))
    elif name is not None:
        print(as_page(entries[0]))
    else:
        print("\n\n".join(as_table(group, [e for e in entries if e.kind == group]) for group in _groups(entries)))


def entries_of(catalogue: Catalogue, kind: Kind[Any]) -> Iterator[Entry]:
    """Every profile of a kind. One that breaks a rule is told with that, and ends nothing."""
    for name in catalogue.names(kind):
        try:
            yield entry_of(catalogue, kind, name)
        except OutriderError as error:
            yield Entry(kind.folder, name, _origin(catalogue, kind, name), error=" ".join(str(error).split()))


def entry_of(catalogue: Catalogue, kind: Kind[Any], name: str) -> Entry:
    """One profile. Raises what its file raises, and ``UnknownNameError``."""
    profile = catalogue.load(kind, name)
    return Entry(kind.folder, name, _origin(catalogue, kind, name), profile.title, profile.figures)


def as_table(title: str, entries: Sequence[Entry]) -> str:
    """For people: a line each, and why a profile cannot be used."""
    head = (title, "title", *MAIN_FIGURES[title], "from")
    rows = [head, *(_row(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines + [f"{entry.name} cannot be used: {entry.error}" for entry in entries if entry.error])


def as_page(entry: Entry) -> str:
    """For people: a profile figure by figure."""
    lines = [f"{entry.name}: {entry.title}", f"from: {entry.origin}"]
    for name, figure in entry.figures.items():
        lines += ["", f"{name} = {_value(figure)}", f"  {figure.source} ({figure.date})"]
    return "\n".join(lines)


def _chosen(catalogue: Catalogue, kind: str | None, name: str | None) -> Iterator[Entry]:
    if kind is None:
        for every in KINDS.values():
            yield from entries_of(catalogue, every)
        return
    folder = kind if kind in KINDS else kind + "s"
    if folder not in KINDS:
        raise UnknownNameError("kind of profile", kind, KINDS)
    if name is None:
        yield from entries_of(catalogue, KINDS[folder])
    else:
        yield entry_of(catalogue, KINDS[folder], name)


def _groups(entries: Sequence[Entry]) -> list[str]:
    return [kind for kind in KINDS if any(entry.kind == kind for entry in entries)]


def _origin(catalogue: Catalogue, kind: Kind[Any], name: str) -> str:
    file: Path | None = catalogue.file(kind, name)
    return BUNDLED if file is None else str(file)


def _row(entry: Entry) -> tuple[str, ...]:
    shown = (entry.figures.get(name) for name in MAIN_FIGURES[entry.kind])
    figures = ("-" if figure is None else _value(figure) for figure in shown)
    return (entry.name, entry.title, *figures, entry.origin)


def _finite(figure: Figure) -> float | None:
    """JSON has no infinity: what is not emulated is null."""
    return figure.value if math.isfinite(figure.value) else None


def _value(figure: Figure) -> str:
    return f"{figure.value:g}" if figure.unit == "share" else f"{figure.value:g} {figure.unit}"
