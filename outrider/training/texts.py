"""Texts to learn from: read from files, cut into tokens by a model's own tokenizer, a share of them held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speculation.engines.files import parse_json
from speculation.errors import InvalidRequestError, PackageError

LINES = ".jsonl"
PIECE_CHARACTERS = 2000
"""Texts are held out in pieces of about so many characters, so that one long file has both parts, too."""
MOST = 4
"""A piece without a line's end is cut at a space, and one without a space where it is so many times as long."""

Tokens = NDArray[np.int32]
Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Token ids to learn from, where in them pieces begin, token ids that are held out, and a digest of all texts."""

    train: Tokens
    openings: NDArray[np.int64]
    held_out: Tokens
    num_documents: int
    digest: str


def documents_of(files: Sequence[Path]) -> Iterator[str]:
    """The texts of files in UTF-8: each a text, or with the suffix ``.jsonl`` one in each line's entry ``text``.

    Raises ``InvalidRequestError`` with the file, the line and what is wrong there.
    """
    for path in files:
        if not path.is_file():
            raise InvalidRequestError(
                f"{path} is not a file; --data takes texts in UTF-8, or {LINES} with an entry text", "data"
            )
        try:
            yield from _lines(path) if path.suffix == LINES else [path.read_text("utf-8")]
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"{path} is not UTF-8: {error}", "data") from error
        except OSError as error:
            raise InvalidRequestError(f"{path} cannot be read: {error}", "data") from error


def pieces_of(text: str) -> Iterator[str]:
    """A text in pieces that make it again when they are joined; each ends with a line where that is possible."""
    start = 0
    while start < len(text):
        end = _end_of_piece(text, start)
        yield text[start:end]
        start = end


def corpus_of(files: Sequence[Path], encode: Encode, boundary: Sequence[int], held_out_share: float, least: int) -> Corpus:
    """``boundary`` stands before each text. A piece is held out by its digest, so that the same pieces stay out wherever they
    stand. Raises ``InvalidRequestError`` where either part has fewer than ``least`` tokens."""
    found: dict[str, list[Tokens]] = {}
    order: list[tuple[str, Tokens]] = []
    whole, num_documents = hashlib.sha256(), 0
    for text in documents_of(files):
        num_documents += 1
        whole.update(text.encode() + b"\0")
        for number, piece in enumerate(pieces_of(text)):
            ids = np.array([*(boundary if number == 0 else ()), *encode(piece)], np.int32)
            digest = hashlib.sha256(piece.encode()).hexdigest()
            found.setdefault(digest, []).append(ids)
            order.append((digest, ids))
    out = _held_out({digest: sum(map(len, parts)) for digest, parts in found.items()}, held_out_share)
    train, held_out = ([ids for digest, ids in order if (digest in out) == is_out] for is_out in (False, True))
    starts = np.cumsum([0, *map(len, train)], dtype=np.int64)[:-1]
    corpus = Corpus(_joined(train), starts, _joined(held_out), num_documents, whole.hexdigest())
    for name, tokens in (("learned from", corpus.train), ("held out", corpus.held_out)):
        if len(tokens) < least:
            of = f"{len(tokens)} tokens of {num_documents} texts are {name}"
            raise InvalidRequestError(f"too little text: {of}, and at least {least} are needed; give more --data", "data")
    return corpus


class TextWindows:
    """Random windows of ``rows + 1`` tokens of a corpus, addressed by (seed, step)."""

    def __init__(self, corpus: Corpus, rows: int, seed: int) -> None:
        self._corpus, self._rows, self._seed = corpus, rows, seed

    def batch(self, step: int, size: int) -> Tensor:
        rng = np.random.default_rng((self._seed, step))
        return self._cut(rng.integers(0, len(self._corpus.train) - self._rows, size), self._rows + 1)

    def openings(self, step: int, size: int, rows: int) -> Tensor:
        """Pieces' first tokens."""
        rng = np.random.default_rng((self._seed, step, 2))
        fitting = self._corpus.openings[self._corpus.openings <= len(self._corpus.train) - rows]
        return self._cut(rng.choice(fitting, size), rows)

    def _cut(self, starts: NDArray[np.int64], length: int) -> Tensor:
        return _stacked(self._corpus.train, starts, length)


def held_out_windows(corpus: Corpus, length: int, count: int) -> Tensor:
    """Evenly spaced windows [at most ``count``, length] of the held-out tokens; they do not overlap."""
    count = max(1, min(count, len(corpus.held_out) // length))
    return _stacked(corpus.held_out, np.linspace(0, len(corpus.held_out) - length, count).astype(np.int64), length)


def _stacked(tokens: Tokens, starts: NDArray[np.int64], length: int) -> Tensor:
    return torch.from_numpy(tokens[starts[:, None] + np.arange(length)].astype(np.int64))


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                entry = parse_json(line.encode(), where)
            except PackageError as error:
                raise InvalidRequestError(str(error), "data") from error
            if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
                raise InvalidRequestError(f"{where} must be a JSON object whose entry text is a string", "data")
            if any("\ud800" <= character <= "\udfff" for character in entry["text"]):
                raise InvalidRequestError(f"{where} has a text with half of a surrogate pair, which is no text", "data")
            yield entry["text"]


def _end_of_piece(text: str, start: int) -> int:
    least, most = start + PIECE_CHARACTERS, start + MOST * PIECE_CHARACTERS
    if least >= len(text):
        return len(text)
    for mark in ("\n", " "):
        if (at := text.find(mark, least, most)) >= 0:
            return at + 1 if mark == "\n" else at
    return min(most, len(text))


def _held_out(sizes: dict[str, int], share: float) -> set[str]:
    """Digests of pieces, the lowest first, that have about this share of all tokens; one at least, and not all."""
    wanted, taken = share * sum(sizes.values()), 0
    out: set[str] = set()
    for digest in sorted(sizes)[:-1]:
        if taken >= wanted:
            break
        out.add(digest)
        taken += sizes[digest]
    return out


def _joined(parts: Sequence[Tokens]) -> Tokens:
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)
