"""The file of a signed update, byte for byte; read with suspicion.

::

    ORTGRAG1 | length of the header, 4 bytes | header, JSON | documents, JSON | vectors, float32 | signature, 64 bytes

Numbers are little-endian. The signature is over all bytes before it. Sizes are bounded, and compared with the file's, before
anything is read by them; nothing but the header is parsed before the signature is right. No name in it is ever a path.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.retrieval import signing
from device_agent.retrieval.documents import FORMAT, Document, Label, Span
from speculation import foreign_json
from speculation.errors import DeltaFormatError, InvalidRequestError

MAGIC = b"ORTGRAG1"
LENGTH_BYTES = 4
MAX_HEADER_BYTES = 16 * 1024
MAX_DELTA_BYTES = 256 * 1024 * 1024
MAX_NAME_CHARACTERS = 1024
A_NAME = f"a document's name is printable text of 1 to {MAX_NAME_CHARACTERS} characters"


@dataclass(frozen=True, slots=True)
class Header:
    """What an update is for: it leads from a store that is ``base`` to one that is ``new``, whose revision is ``counter``."""

    format: int
    base: str
    new: str
    counter: int
    model_digest: str
    dimension: int
    document_bytes: int
    num_vectors: int

    @property
    def vector_bytes(self) -> int:
        return 4 * self.dimension * self.num_vectors


@dataclass(frozen=True, slots=True)
class Delta:
    """An update: documents that come, in place of those of their names, and names of those that go."""

    header: Header
    added: Sequence[Document]
    removed: Sequence[str]


def write(path: Path, header: Header, added: Sequence[Document], removed: Sequence[str], key: Path) -> Header:
    """A new file; sizes are filled in. Raises ``InvalidRequestError`` where it cannot be made, would be too large, or names
    a document as no device takes it."""
    for name in (*removed, *(document.name for document in added)):
        if not _is_name(name):
            raise InvalidRequestError(f"no device takes a document called {name!r}: {A_NAME}; rename its file", "name")
    documents = _json({"removed": list(removed), "added": [_told(document) for document in added]})
    vectors = b"".join(np.ascontiguousarray(document.vectors, "<f4").tobytes() for document in added)
    num_vectors = sum(len(document.spans) for document in added)
    whole = asdict(header) | {"document_bytes": len(documents), "num_vectors": num_vectors}
    told = _json(whole)
    content = MAGIC + len(told).to_bytes(LENGTH_BYTES, "little") + told + documents + vectors
    if len(content) + signing.SIGNATURE_BYTES > MAX_DELTA_BYTES:
        raise InvalidRequestError(
            f"the delta would have {len(content)} bytes; at most {MAX_DELTA_BYTES} may be: make smaller steps"
        )
    signed = content + signing.sign(key, content)  # before there is a file, which would stand in the way of the next one
    try:
        with path.open("xb") as file:
            file.write(signed)
    except FileExistsError as error:
        raise InvalidRequestError(f"{path} is there already; name a new file", "out") from error
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be made: {error.strerror}", "out") from error
    return Header(**whole)


def read(path: Path, public_key: Path) -> Delta:
    """An update that the key's owner signed.

    Raises ``DeltaFormatError`` for what is no update or not all of one, ``DeltaSignatureError``, ``InvalidRequestError`` for
    a file that cannot be read.
    """
    content = _content(path)
    start = len(MAGIC) + LENGTH_BYTES
    length = int.from_bytes(content[len(MAGIC) : start], "little")
    _require(content.startswith(MAGIC), f"{path} is no delta of a store: make one with rag delta make")
    _require(length <= MAX_HEADER_BYTES, f"{path}: the header has {length} bytes, and may have {MAX_HEADER_BYTES}")
    header, documents_at = _header(path, content[start : start + length]), start + length
    vectors_at = documents_at + header.document_bytes
    signature_at = vectors_at + header.vector_bytes
    size = signature_at + signing.SIGNATURE_BYTES
    _require(
        len(content) == size, f"{path} has {len(content)} bytes and should have {size}: it is cut off, or longer; get it again"
    )
    signing.check(public_key, content[:signature_at], content[signature_at:], str(path))
    vectors = np.frombuffer(content[vectors_at:signature_at], "<f4").reshape(header.num_vectors, header.dimension)
    _require(bool(np.isfinite(vectors).all()), f"{path} holds vectors that are no numbers")
    return _delta(path, header, _parsed(path, content[documents_at:vectors_at]), vectors)


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        _require(size <= MAX_DELTA_BYTES, f"{path} has {size} bytes; at most {MAX_DELTA_BYTES} are read")
        with path.open("rb") as file:
            return file.read(size + 1)
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}", "delta") from error


def _header(path: Path, content: bytes) -> Header:
    fields = _parsed(path, content)
    _require(isinstance(fields, dict), f"{path}: the header is no JSON object")
    version = fields.get("format")
    _require(version == FORMAT, f"{path} has format {version!r}; this program reads format {FORMAT}")
    kinds = {"base": str, "new": str, "model_digest": str}
    names = tuple(Header.__dataclass_fields__)
    _require(set(fields) == set(names), f"{path}: the header must have {', '.join(names)}, no less and no more")
    for name in names:
        kind = kinds.get(name, int)
        is_right = type(fields[name]) is kind and (kind is str or 0 <= fields[name] <= MAX_DELTA_BYTES)
        _require(is_right, f"{path}: {name} of the header is {str(fields[name])[:40]!r}")
    return Header(**fields)


def _delta(path: Path, header: Header, told: Any, vectors: NDArray[np.float32]) -> Delta:
    is_right = (
        isinstance(told, dict) and set(told) == {"removed", "added"} and all(type(part) is list for part in told.values())
    )
    _require(is_right, f"{path}: its documents must be an object with removed and added")
    added, used = list[Document](), 0
    for entry in told["added"]:
        document = _document(path, entry, vectors[used:])
        added.append(document)
        used += len(document.spans)
    _require(used == header.num_vectors, f"{path} has {header.num_vectors} vectors for {used} chunks")
    for name in told["removed"]:
        _check_name(path, name)
    return Delta(header, added, told["removed"])


def _told(document: Document) -> dict[str, Any]:
    spans = [[span.start, span.end] for span in document.spans]
    return {"name": document.name, "label": document.label.value, "text": document.text, "spans": spans}


def _document(path: Path, entry: Any, vectors: NDArray[np.float32]) -> Document:
    is_object = isinstance(entry, dict) and set(entry) == {"name", "label", "text", "spans"}
    _require(is_object, f"{path}: a document must have name, label, text and spans")
    name, label, text, spans = (entry[key] for key in ("name", "label", "text", "spans"))
    _check_name(path, name)
    _require(label in list(Label), f"{path}: {name} has the label {label!r}; known are {', '.join(Label)}")
    _require(type(text) is str and type(spans) is list, f"{path}: {name} must have a text and a list of spans")
    _require(all(_is_span(span, len(text)) for span in spans), f"{path}: {name} has spans that are not of its text")
    _require(len(spans) <= len(vectors), f"{path} has fewer vectors than chunks")
    return Document(name, Label(label), text, [Span(*span) for span in spans], vectors[: len(spans)])


def _check_name(path: Path, name: Any) -> None:
    _require(_is_name(name), f"{path}: {A_NAME}")


def _is_name(name: Any) -> bool:
    return type(name) is str and 0 < len(name) <= MAX_NAME_CHARACTERS and name.isprintable()


def _is_span(span: Any, length: int) -> bool:
    is_pair = type(span) is list and len(span) == 2 and all(type(value) is int for value in span)
    return is_pair and 0 <= span[0] <= span[1] <= length


def _parsed(path: Path, content: bytes) -> Any:
    try:
        return foreign_json.loads(content)
    except ValueError as error:
        raise DeltaFormatError(f"{path} is no delta of a store, or damaged: {error}") from error


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise DeltaFormatError(what)
