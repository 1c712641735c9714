"""A store of documents: one file with their texts, chunks and vectors; every change is whole or nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from device_agent.retrieval import database
from device_agent.retrieval.database import mapped
from device_agent.retrieval.documents import Cut, Document, Entry, Hit, Label, Span, store_digest, text_digest
from speculation.errors import InvalidRequestError, StoreError

MAX_HITS = 64


@dataclass(frozen=True, slots=True)
class Facts:
    """What a store was made for. ``revision`` grows with every change; a signed delta never takes it back."""

    model_digest: str
    dimension: int
    cut: Cut
    revision: int


class Store:
    """An open store. Of one thread at a time; close it.

    Raises ``InvalidRequestError`` where there is none, ``StoreError`` for a file that is damaged or in use.
    """

    def __init__(self, path: Path, *, is_read_only: bool = True) -> None:
        self.path = path
        self._connection = database.connect(path, is_read_only=is_read_only)
        try:
            self.facts = self._read_facts()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, model_digest: str, dimension: int, cut: Cut) -> Self:
        """A new store, open for changes. Raises ``InvalidRequestError`` where something is there."""
        if not 1 <= cut.overlap_tokens + 1 <= cut.chunk_tokens:
            raise InvalidRequestError(f"the overlap must be less than a chunk of {cut.chunk_tokens} tokens", "overlap")
        connection = database.create(path, dimension)
        facts = {"model_digest": model_digest, "dimension": dimension, "revision": 0}
        facts |= {"chunk_tokens": cut.chunk_tokens, "overlap_tokens": cut.overlap_tokens}
        with mapped(path), connection:
            connection.executemany("insert into facts values (?, ?)", list(facts.items()))
        connection.close()
        return cls(path, is_read_only=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def check_model(self, digest: str) -> None:
        """Raises ``StoreError`` where the vectors are another model's."""
        if digest != self.facts.model_digest:
            raise StoreError(
                f"{self.path} is of another embedding model ({self.facts.model_digest[:12]}, this one is {digest[:12]}):"
                " use that one, or make the store again"
            )

    def entries(self) -> list[Entry]:
        """All documents, by name."""
        rows = self._all(
            "select name, label, text_digest, digest, root, (select count(*) from chunks where document = documents.id),"
            " length(text) from documents order by name"
        )
        return [Entry(row[0], Label(row[1]), *row[2:]) for row in rows]

    @property
    def digest(self) -> str:
        """What the store is, by what its documents were when they were put in."""
        digests = dict(self._all("select name, digest from documents"))
        return store_digest(self.facts.model_digest, self.facts.cut, digests)

    def document(self, name: str) -> Document:
        """A document with its vectors. Raises ``InvalidRequestError`` for one that is not there."""
        rows = self._all("select id, label, text, root from documents where name = ?", name)
        if not rows:
            raise InvalidRequestError(
                f"{self.path} has no document {name!r}; outrider rag list tells those that it has", "name"
            )
        number, label, text, root = rows[0]
        parts = self._all("select id, start, end from chunks where document = ? order by id", number)
        vectors = [self._vector(part[0]) for part in parts]
        spans = [Span(start, end) for _, start, end in parts]
        shaped = np.array(vectors, np.float32).reshape(len(parts), self.facts.dimension)
        return Document(name, Label(label), text, spans, shaped, root)

    def search(self, vector: NDArray[np.float32], limit: int, labels: Collection[Label] = frozenset(Label)) -> list[Hit]:
        """The chunks nearest to a vector, best first."""
        hits = [hit for label in sorted(labels) for hit in self._search_in(label, vector, min(limit, MAX_HITS))]
        return sorted(hits, key=lambda hit: (-hit.score, hit.document, hit.span.start))[:limit]

    def _search_in(self, label: Label, vector: NDArray[np.float32], limit: int) -> list[Hit]:
        asked = np.ascontiguousarray(vector, "<f4").tobytes()
        rows = self._all(
            "select d.name, d.label, c.start, c.end, v.distance, substr(d.text, c.start + 1, c.end - c.start)"
            " from (select rowid, distance from vectors where embedding match ? and k = ? and label = ?) v"
            " join chunks c on c.id = v.rowid join documents d on d.id = c.document",
            asked,
            limit,
            label.value,
        )
        # The label that counts is the document's own.
        return [Hit(r[0], Label(r[1]), Span(r[2], r[3]), round(1 - r[4], 6), r[5]) for r in rows if r[1] == label.value]

    @contextmanager
    def change(self, revision: int | None = None) -> Iterator[None]:
        """All changes of the block, or none; the revision becomes the one that is given, else grows by one."""
        with mapped(self.path), self._connection:
            self._run("update facts set value = value + 1 where key = 'revision'")  # at once: only one process may change it
            yield
            if revision is not None:
                self._run("update facts set value = ? where key = 'revision'", revision)
        self.facts = self._read_facts()

    def put(self, document: Document) -> None:
        """Inside ``change``: a document, in place of one of its name."""
        self.take(document.name)
        label, text = document.label.value, document.text
        row = document.name, label, document.root, text, text_digest(text), document.digest
        self._run("insert into documents (name, label, root, text, text_digest, digest) values (?, ?, ?, ?, ?, ?)", *row)
        number = self._connection.last_insert_rowid()
        for span, vector in zip(document.spans, document.vectors, strict=True):
            self._run("insert into chunks (document, start, end) values (?, ?, ?)", number, span.start, span.end)
            content = np.ascontiguousarray(vector, "<f4").tobytes()
            self._run(
                "insert into vectors (rowid, embedding, label) values (?, ?, ?)",
                self._connection.last_insert_rowid(),
                content,
                label,
            )

    def take(self, name: str) -> bool:
        """Inside ``change``: remove a document; whether it was there."""
        rows = self._all("select c.id from chunks c join documents d on d.id = c.document where d.name = ?", name)
        for (chunk,) in rows:
            self._run("delete from vectors where rowid = ?", chunk)
        self._run("delete from documents where name = ?", name)
        return bool(self._connection.changes())

    def faults(self) -> list[str]:
        """What is wrong with the store, each in words; every text and vector is read."""
        with mapped(self.path):
            found = database.damages(self._connection)
        if found:
            return found
        num_chunks, num_vectors = (self._all(f"select count(*) from {table}")[0][0] for table in ("chunks", "vectors"))
        if num_chunks != num_vectors:
            found.append(f"there are {num_chunks} chunks and {num_vectors} vectors")
        for entry in self.entries():
            try:
                is_whole = self.document(entry.name).digest == entry.digest
            except StoreError as error:
                found.append(f"{entry.name}: {error}")
                continue
            if not is_whole:
                found.append(f"{entry.name} is not what was put in: its digest differs")
        return found

    def _vector(self, chunk: int) -> NDArray[np.float32]:
        rows = self._all("select embedding from vectors where rowid = ?", chunk)
        if not rows or len(rows[0][0]) != 4 * self.facts.dimension:
            raise StoreError(f"chunk {chunk} of {self.path} has no vector")
        return np.frombuffer(rows[0][0], "<f4")

    def _read_facts(self) -> Facts:
        found = dict(self._all("select key, value from facts"))
        try:
            cut = Cut(int(found["chunk_tokens"]), int(found["overlap_tokens"]))
            return Facts(str(found["model_digest"]), int(found["dimension"]), cut, int(found["revision"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{self.path} does not say what it was made for ({error}): make it again") from error

    def _all(self, statement: str, *values: object) -> list[Any]:
        with mapped(self.path):
            rows: list[Any] = self._connection.execute(statement, values).fetchall()
            return rows

    def _run(self, statement: str, *values: object) -> None:
        with mapped(self.path):
            self._connection.execute(statement, values)
