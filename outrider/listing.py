"""`outrider models list`: the pairs and models in folders, and why a folder is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speculation.engines.layouts import GENAI_CONFIG, GRAPH_FOLDERS, layout_of, only_describes
from speculation.engines.manifest import CONFIG, INDEX, MANIFEST, PAIR, WEIGHTS
from speculation.engines.model import Model
from speculation.engines.package import load_pair
from speculation.engines.pairs import load_full
from speculation.errors import OutriderError

DEPTH = 3
"""A hub's names have two parts, so models may lie in folders of folders."""
MARKS = (MANIFEST, CONFIG, GENAI_CONFIG, WEIGHTS, INDEX)
"""Files that a folder has which is to be a model, whether it loads or not."""
SHORT = 12
"""Characters of a digest that are shown to people."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder. ``layout`` is ``pair``, or a layout of ``docs/models.md``; None where it does not load, for the reason in
    ``error``. ``bytes`` is what all of its files take; figures that are not known are None."""

    path: str
    name: str
    layout: str | None = None
    variants: tuple[str, ...] = ()
    num_parameters: int | None = None
    context_length: int | None = None
    bytes: int | None = None
    digest: str | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "variants": list(self.variants)}


def entries_of(root: Path, with_digests: bool = True) -> Iterator[Entry]:
    """What a folder is, or holds. Nothing that is wrong with a model ends the list."""
    yield from _entries(root, root, with_digests)


def as_table(entries: list[Entry]) -> str:
    """For people: columns, and below each folder that does not load the reason."""
    head = ("name", "layout", "variants", "parameters", "context", "MB", "digest")
    rows = [head, *(_row(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row, entry in zip(rows, (None, *entries), strict=True):
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        lines.append(line if entry is None or entry.error is None else f"{entry.name}: does not load: {entry.error}")
    return "\n".join(lines)


def _entries(path: Path, root: Path, with_digests: bool) -> Iterator[Entry]:
    name = path.name if path == root else path.relative_to(root).as_posix()
    try:
        yield from _found(path, root, name, with_digests)
    except OSError as error:
        yield _failed(path, name, error)


def _found(path: Path, root: Path, name: str, with_digests: bool) -> Iterator[Entry]:
    if (path / PAIR).is_file():
        yield from _pair(path, name)
        return
    inner = _folders(path) if len(path.relative_to(root).parts) < DEPTH else []
    is_only_folders = bool(inner) and not any(entry.is_file() for entry in path.iterdir())
    if is_only_folders or (path == root and not _looks_like_a_model(path)):
        if any((path / name).is_file() for name in MARKS):
            yield _model(path, name, with_digests)
            inner = [folder for folder in inner if folder.name not in GRAPH_FOLDERS]
        for folder in inner:
            yield from _entries(folder, root, with_digests)
        return
    yield _model(path, name, with_digests)


def _folders(path: Path) -> list[Path]:
    """Folders in a folder, but for hidden ones, which tools keep their own things in (a download that is not whole, too)."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))) if path.is_dir() else []


def _looks_like_a_model(path: Path) -> bool:
    try:
        return only_describes(path) or layout_of(path) is not None
    except OutriderError:
        return False


def _pair(path: Path, name: str) -> Iterator[Entry]:
    """The pair, and its halves."""
    try:
        pair = load_pair(path)
        variants = pair.draft.variants + tuple(v for v in pair.full.variants if v not in pair.draft.variants)
        yield Entry(str(path), name, "pair", variants, None, None, _size(path), pair.identity.pair_digest)
        for half in (pair.draft, pair.full):
            yield _entry(half, f"{name}/{half.path.name}", "package", with_digest=True)
    except (OutriderError, OSError) as error:
        yield _failed(path, name, error)


def _model(path: Path, name: str, with_digest: bool) -> Entry:
    try:
        layout = "described" if only_describes(path) else layout_of(path).value
        return _entry(load_full(path), name, layout, with_digest or layout == "package")
    except (OutriderError, OSError) as error:
        return _failed(path, name, error)


def _entry(model: Model, name: str, layout: str, with_digest: bool) -> Entry:
    _ = model.tokenizer
    return Entry(
        path=str(model.path),
        name=name,
        layout=layout,
        variants=(*model.variants, *model.checkpoint_variants),
        num_parameters=model.num_parameters or None,
        context_length=model.context_length,
        bytes=_size(model.path),
        digest=model.digest if with_digest else None,
    )


def _failed(path: Path, name: str, error: Exception) -> Entry:
    return Entry(str(path), name, error=" ".join(str(error).split()))


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _row(entry: Entry) -> tuple[str, ...]:
    def shown(value: int | None) -> str:
        return "-" if value is None else f"{value:,}"

    size = "-" if entry.bytes is None else f"{entry.bytes / 1e6:,.1f}"
    digest = entry.digest[:SHORT] if entry.digest else "-"
    numbers = (shown(entry.num_parameters), shown(entry.context_length), size)
    return (entry.name if entry.error is None else "", entry.layout or "", ", ".join(entry.variants), *numbers, digest)
