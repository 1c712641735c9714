"""What a shell may complete behind an option: names of profiles, with their titles, and of conformance cases."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from speculation.errors import OutriderError
from speculation.shaping.catalogue import CLOUDS, NETWORKS, PHONES, Catalogue, Kind

Completion = Callable[[typer.Context, str], list[tuple[str, str]]]

KINDS: dict[str, Kind[Any]] = {kind.folder: kind for kind in (PHONES, NETWORKS, CLOUDS)}


def names_of(kind: Kind[Any]) -> Completion:
    """Completes the names of a kind: bundled ones, and those in the folder behind ``--profiles``, where it stands earlier."""

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        return list(_named(ctx, kind, incomplete))

    return complete


phones, networks, clouds = names_of(PHONES), names_of(NETWORKS), names_of(CLOUDS)


def kinds(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Completes what `outrider profiles` lists."""
    return [(name, "") for name in KINDS if name.startswith(incomplete)]


def profiles(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Completes the names of the kind that stands in front."""
    kind = KINDS.get(str(ctx.params.get("kind")))
    return [] if kind is None else list(_named(ctx, kind, incomplete))


def cases(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Completes the names of conformance cases."""
    from outrider.conformance import CASES

    return [(case.name, case.promise) for case in CASES if case.name.startswith(incomplete)]


def _named(ctx: typer.Context, kind: Kind[Any], incomplete: str) -> Iterator[tuple[str, str]]:
    """A shell that completes has nowhere to show an error: what cannot be read has no names, or no title."""
    folder = ctx.params.get("profiles")
    try:
        catalogue = Catalogue(None if folder is None else Path(os.path.expanduser(folder)))  # as it was typed, so far
        names = catalogue.names(kind)
    except OutriderError:
        catalogue, names = Catalogue(), kind.bundled_names()
    for name in names:
        if name.startswith(incomplete):
            yield name, _title(catalogue, kind, name)


def _title(catalogue: Catalogue, kind: Kind[Any], name: str) -> str:
    try:
        return str(catalogue.load(kind, name).title)
    except OutriderError:
        return ""
