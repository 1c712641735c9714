"""`outrider rag`: stores of documents: add to them, list, search, remove, verify, label; and signed updates of them."""

from __future__ import annotations

import json as json_format
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider import options, rag_delta
from outrider.running import harmless, say, waiting
from speculation.errors import InvalidRequestError, StoreError

if TYPE_CHECKING:
    from device_agent.retrieval.embedder import Embedder
    from device_agent.retrieval.indexing import Tell
    from device_agent.retrieval.store import Store

app = typer.Typer(
    help="Documents on the device: add, list, search, remove, verify, update.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(rag_delta.app, name="delta")

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="The store: a file.")]
LabelOption = Annotated[
    str | None, typer.Option(metavar="LABEL", help="private (may not leave the device; the default of new ones) or shared.")
]
EXCERPT_CHARACTERS = 160


@app.command()
def add(
    store: StoreArgument,
    path: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or folders with .txt, .md, .markdown, .rst.")],
    label: LabelOption = None,
    model: options.RagModel = None,
    chunk_tokens: Annotated[int, typer.Option(metavar="N", help="Of a new store: tokens of a chunk.")] = 128,
    overlap: Annotated[int, typer.Option(metavar="N", help="Of a new store: tokens that chunks share.")] = 32,
    json: JsonOption = False,
) -> None:
    """Bring STORE up to what is at PATH.

    Makes it where it is not there. New and changed files are embedded, others passed over; documents whose file is gone from a
    named folder are removed.
    """
    from device_agent.retrieval.documents import Cut
    from device_agent.retrieval.indexing import add as add_to
    from device_agent.retrieval.indexing import sources_of

    began = time.monotonic()
    wanted, sources = _label(label), sources_of(path)
    embedder = _embedder(model)
    if not (sources or store.exists()):
        raise InvalidRequestError(f"no document is at {', '.join(map(str, path))}; folders are searched for .txt, .md and .rst")
    with _open_or_make(store, embedder, Cut(chunk_tokens, overlap)) as found:
        with _bar(is_shown=sys.stderr.isatty() and not json) as tell:
            outcome = add_to(found, embedder, path, wanted, tell)
        counts = {"documents": len(found.entries()), "revision": found.facts.revision, "digest": found.digest}
    seconds = round(time.monotonic() - began, 3)
    if json:
        told = {"added": outcome.added, "unchanged": outcome.unchanged, "removed": outcome.removed, "skipped": outcome.skipped}
        print(json_format.dumps({"store": str(store), **told, **counts, "seconds": seconds}))
        return
    for name, why in outcome.skipped.items():
        say(f"passed over {name}: {why}")
    print(
        f"{store}: {len(outcome.added)} added, {len(outcome.unchanged)} unchanged, {len(outcome.removed)} removed;"
        f" {counts['documents']} documents, revision {counts['revision']}, {seconds} s"
    )


@app.command("list")
def list_command(store: StoreArgument, json: JsonOption = False) -> None:
    """List the documents of STORE."""
    with _store(store) as found:
        entries, facts = found.entries(), found.facts
    if json:
        told = [
            {"name": e.name, "label": e.label.value, "chunks": e.num_chunks, "characters": e.num_characters, "digest": e.digest}
            for e in entries
        ]
        print(json_format.dumps({"store": str(store), "revision": facts.revision, "documents": told}))
        return
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        print(
            f"{entry.name:<{width}}  {entry.label.value:<7}  {entry.num_chunks:>5} chunks  {entry.num_characters:>8} characters"
        )
    cut = f"chunks of {facts.cut.chunk_tokens} tokens that share {facts.cut.overlap_tokens}"
    print(f"{store}: {len(entries)} documents, {cut}, revision {facts.revision}, model {facts.model_digest[:12]}")


@app.command()
def search(
    store: StoreArgument,
    question: Annotated[str, typer.Argument(metavar="TEXT", help="What is looked for.")],
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, max=32, help="At most so many chunks.")] = 4,
    label: LabelOption = None,
    model: options.RagModel = None,
    json: JsonOption = False,
) -> None:
    """Show the chunks of STORE that are nearest to TEXT."""
    from device_agent.retrieval.documents import Label

    wanted = _label(label)
    with _store(store) as found:
        embedder = _embedder(model)
        found.check_model(embedder.digest)
        hits = found.search(embedder.embed(question), k, [wanted] if wanted else list(Label))
    for hit in hits:
        place = {"document": hit.document, "label": hit.label.value, "start": hit.span.start, "end": hit.span.end}
        if json:
            print(json_format.dumps({**place, "score": hit.score, "text": hit.text}))
        else:
            words = harmless(" ".join(hit.text.split()))
            shown = words if len(words) <= EXCERPT_CHARACTERS else words[: EXCERPT_CHARACTERS - 3] + "..."
            print(f"{hit.score:.3f}  {hit.document}:{hit.span.start}-{hit.span.end} ({hit.label.value})\n       {shown}")
    if not hits and not json:
        print("nothing: the store has no such document")


@app.command()
def remove(
    store: StoreArgument,
    name: Annotated[list[str], typer.Argument(metavar="NAME...", help="Documents, as `list` names them.")],
    json: JsonOption = False,
) -> None:
    """Remove documents from STORE; their text is overwritten in the file."""
    from device_agent.retrieval.indexing import remove as remove_from

    with _store(store, is_read_only=False) as found:
        remove_from(found, name)
        revision = found.facts.revision
    if json:
        print(json_format.dumps({"store": str(store), "removed": name, "revision": revision}))
    else:
        print(f"{store}: {len(name)} removed, revision {revision}")


@app.command()
def label(
    store: StoreArgument,
    label: Annotated[str, typer.Argument(metavar="LABEL", help="private or shared.")],
    name: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Documents; all of them by default.")] = None,
    json: JsonOption = False,
) -> None:
    """Say whether documents of STORE may leave the device."""
    from device_agent.retrieval.indexing import relabel

    wanted = _label(label)
    with _store(store, is_read_only=False) as found:
        changed = relabel(found, wanted, name or [entry.name for entry in found.entries()]) if wanted else []
    if json:
        print(json_format.dumps({"store": str(store), "label": label, "changed": changed}))
    else:
        print(f"{store}: {len(changed)} documents are {label} now")


@app.command()
def verify(store: StoreArgument, json: JsonOption = False) -> None:
    """Read all of STORE and compare every document with its digest."""
    with _store(store) as found, waiting("reading the store"):
        faults, digest, count = found.faults(), found.digest, len(found.entries())
    if json:
        print(json_format.dumps({"store": str(store), "documents": count, "digest": digest, "faults": faults}))
    if faults:
        raise StoreError(f"{store} is damaged: {'; '.join(faults)}; make it again from the documents")
    if not json:
        print(f"{store}: {count} documents agree with their digests; the store's is {digest}")


def _store(path: Path, *, is_read_only: bool = True) -> Store:
    from device_agent.retrieval.store import Store

    return Store(path, is_read_only=is_read_only)


def _open_or_make(path: Path, embedder: Embedder, cut: Any) -> Store:
    from device_agent.retrieval.store import Store

    if path.exists():
        return Store(path, is_read_only=False)
    if cut.chunk_tokens > embedder.max_tokens:
        raise InvalidRequestError(f"the embedding model reads {embedder.max_tokens} tokens at most: a chunk may have no more")
    return Store.create(path, embedder.digest, embedder.dimension, cut)


def _embedder(model: Path | None) -> Embedder:
    from device_agent.retrieval.embedder import Embedder, model_folder

    with waiting("loading the embedding model"):
        return Embedder(model_folder(model))


def _label(name: str | None) -> Any:
    from device_agent.retrieval.documents import label_of

    return None if name is None else label_of(name)


@contextmanager
def _bar(is_shown: bool) -> Iterator[Tell]:
    """A progress bar on stderr: files, and the one that is read."""
    if not is_shown:
        yield lambda name, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    name_column = TextColumn("{task.description}", markup=False)  # brackets in a file's name are no style
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), name_column)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda name, done, total: bar.update(task, description=name, completed=done, total=total)
