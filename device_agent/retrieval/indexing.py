"""From files to a store: which are taken, which have changed, and which are gone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from device_agent.retrieval.cutting import spans_of
from device_agent.retrieval.documents import Document, Entry, Label, text_digest
from device_agent.retrieval.embedder import Embedder
from device_agent.retrieval.store import Store
from speculation.errors import InvalidRequestError

SUFFIXES = (".txt", ".md", ".markdown", ".rst")
MAX_FILE_BYTES = 16 * 1024 * 1024

Tell = Callable[[str, int, int], None]
"""Told of each file: its name, how many are done, how many there are."""

Refused = Callable[[str, OSError], None]
"""Told of a folder or a file that cannot be read: how its documents' names begin, and what the system says."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, the name that its document gets, and the path that was named for it."""

    name: str
    path: Path
    root: str


@dataclass(slots=True)
class Outcome:
    """Names of documents, by what became of them; ``skipped`` says why of each. Those in ``unread``, and all in a folder there,
    nobody could look at, so what the store has of them stays.
    """

    added: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)

    def refused(self, name: str, error: OSError) -> None:
        """A file or a folder that the system does not let be read."""
        self.skipped[name] = f"it cannot be read: {error.strerror}"
        self.unread.add(name)

    def knows(self, name: str) -> bool:
        """Whether it was seen what became of a document."""
        folders = (parent.as_posix() for parent in PurePosixPath(name).parents)
        return name not in self.unread and self.unread.isdisjoint(folders)


def sources_of(paths: Sequence[Path], refused: Refused = lambda name, error: None) -> list[Source]:
    """The files that were named, and those of named folders with ``SUFFIXES``. Symbolic links in folders are passed by, and
    what cannot be read, of which ``refused`` is told.

    Raises ``InvalidRequestError`` for a path that is not there, and for two files that would get one name.
    """
    found: dict[str, Source] = {}
    for path in paths:
        for source in _sources_in(path.absolute(), refused):
            other = found.setdefault(source.name, source)
            if other.path != source.path:
                raise InvalidRequestError(
                    f"{other.path} and {source.path} would both be {source.name}; rename a folder, or add them to two stores"
                )
    return list(found.values())


def _sources_in(path: Path, refused: Refused) -> Iterator[Source]:
    def pass_over(error: OSError) -> None:
        inside = Path(error.filename).relative_to(path)
        refused(PurePosixPath(f"{path.name}/{inside.as_posix()}").as_posix(), error)

    if path.is_file():
        yield Source(path.name, path, str(path))
    elif path.is_dir():
        for folder, folders, names in os.walk(path, onerror=pass_over):
            folders.sort()
            for file in (Path(folder, name) for name in sorted(names) if name.lower().endswith(SUFFIXES)):
                try:
                    is_taken = file.is_file() and not file.is_symlink()
                except OSError as error:  # of a folder that can be listed and not entered
                    pass_over(error)
                    continue
                if is_taken:
                    yield Source(f"{path.name}/{file.relative_to(path).as_posix()}", file, str(path))
    else:
        raise InvalidRequestError(f"{path} is not there; name files or folders with {', '.join(SUFFIXES)}", "path")


def add(store: Store, embedder: Embedder, paths: Sequence[Path], label: Label | None, tell: Tell) -> Outcome:
    """Bring a store to what is at ``paths``: new and changed files are embedded, those gone from a named path are removed.

    ``label`` None leaves a document's as it is; a new one is private. Each file is put in by itself, so that what was done
    stays where this is interrupted. Raises ``StoreError`` for a store of another model, ``InvalidRequestError`` for a name that
    another path's document has.
    """
    store.check_model(embedder.digest)
    outcome = Outcome()
    sources, entries = sources_of(paths, outcome.refused), {entry.name: entry for entry in store.entries()}
    for source in sources:
        _check_root(source, entries.get(source.name))
    for number, source in enumerate(sources):
        tell(source.name, number, len(sources))
        _add_one(store, embedder, source, entries.get(source.name), label, outcome)
    tell("", len(sources), len(sources))
    roots = {str(path.absolute()) for path in paths}
    kept = {*outcome.added, *outcome.unchanged}
    gone = [e.name for e in entries.values() if e.root in roots and e.name not in kept and outcome.knows(e.name)]
    remove(store, gone)
    outcome.removed += gone
    return outcome


def remove(store: Store, names: Sequence[str]) -> None:
    """Raises ``InvalidRequestError`` where one is not there; then none is removed."""
    if not names:
        return
    with store.change():
        for name in names:
            if not store.take(name):
                raise InvalidRequestError(
                    f"{store.path} has no document {name!r}; outrider rag list tells those it has", "name"
                )


def relabel(store: Store, label: Label, names: Sequence[str]) -> list[str]:
    """Those of the documents whose label was another. Raises ``InvalidRequestError`` where one is not there."""
    changed = [replace(document, label=label) for document in map(store.document, names) if document.label is not label]
    if changed:
        with store.change():
            for document in changed:
                store.put(document)
    return [document.name for document in changed]


def _add_one(
    store: Store, embedder: Embedder, source: Source, entry: Entry | None, label: Label | None, outcome: Outcome
) -> None:
    text = _text_of(source, outcome)
    if text is None:
        return
    wanted = label or (entry.label if entry else Label.PRIVATE)
    if entry is not None and (entry.text_digest, entry.label) == (text_digest(text), wanted):
        outcome.unchanged.append(source.name)
        return
    document = document_of(embedder, store, source, text, wanted)
    with store.change():
        store.put(document)
    outcome.added.append(source.name)


def document_of(embedder: Embedder, store: Store, source: Source, text: str, label: Label) -> Document:
    """A text, cut as the store wants it and embedded."""
    spans = spans_of(text, embedder.offsets(text), store.facts.cut)
    vectors = np.array([embedder.embed(text[span.start : span.end]) for span in spans], np.float32)
    return Document(source.name, label, text, spans, vectors.reshape(len(spans), embedder.dimension), source.root)


def _check_root(source: Source, entry: Entry | None) -> None:
    if entry is not None and entry.root not in ("", source.root):
        raise InvalidRequestError(
            f"the store has {source.name} from {entry.root}, so none from {source.root} can be added: remove that one first"
        )


def _text_of(source: Source, outcome: Outcome) -> str | None:
    """The text of a file; None, and a reason, for one that is none."""
    if not _is_text(source.name + source.root):
        outcome.skipped[source.name] = "its name is no text in UTF-8"
        return None
    try:
        size = source.path.stat().st_size
        if size > MAX_FILE_BYTES:
            outcome.skipped[source.name] = f"it has {size} bytes; at most {MAX_FILE_BYTES} are read"
            return None
        text = source.path.read_text("utf-8")
    except UnicodeDecodeError:
        outcome.skipped[source.name] = "it is no text in UTF-8"
        return None
    except FileNotFoundError:  # since the folder was listed: the files before it took their time
        outcome.skipped[source.name] = "it is gone"
        return None
    except OSError as error:
        outcome.refused(source.name, error)
        return None
    if not text.strip() or "\0" in text:
        outcome.skipped[source.name] = "it holds no text"
        return None
    return text


def _is_text(name: str) -> bool:
    """A name of other bytes comes from the system with half surrogate pairs in it, which a store cannot hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
