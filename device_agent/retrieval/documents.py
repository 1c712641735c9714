"""Documents of a store as values: who may read them, where they were cut, and what was found in them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from speculation.engines.files import digest_of
from speculation.errors import UnknownNameError

FORMAT = 1


class Label(StrEnum):
    """Whether a document's text may leave the device (``policy.py``)."""

    PRIVATE = "private"
    SHARED = "shared"


def label_of(name: str) -> Label:
    """Raises ``UnknownNameError``."""
    if name not in list(Label):
        raise UnknownNameError("label", name, Label)
    return Label(name)


@dataclass(frozen=True, slots=True)
class Cut:
    """How texts are cut: chunks of at most ``chunk_tokens``, the last ``overlap_tokens`` of each in the next one, too."""

    chunk_tokens: int = 128
    overlap_tokens: int = 32


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a text, in characters."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """A text, cut and embedded: ``vectors`` is float32 [number of spans, dimension].

    ``root`` is the path that it was added from, on this device; it is no part of what the document is.
    """

    name: str
    label: Label
    text: str
    spans: Sequence[Span]
    vectors: NDArray[np.float32]
    root: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of all that a search can find of it."""
        spans = [[span.start, span.end] for span in self.spans]
        vectors = hashlib.sha256(np.ascontiguousarray(self.vectors, "<f4").tobytes()).hexdigest()
        return digest_of([self.name, self.label.value, text_digest(self.text), spans, vectors])


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store lists of a document."""

    name: str
    label: Label
    text_digest: str
    digest: str
    root: str
    num_chunks: int
    num_characters: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found. ``score`` is the cosine of the angle to the question, at most 1."""

    document: str
    label: Label
    span: Span
    score: float
    text: str


def text_digest(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def store_digest(model_digest: str, cut: Cut, digests: Mapping[str, str]) -> str:
    """What a store is, whoever made it and in whichever order: its model, its cut, its documents by name."""
    return digest_of([FORMAT, model_digest, cut.chunk_tokens, cut.overlap_tokens, dict(digests)])
