"""Tokenizers on disk: loading one, and whether two files mean the same tokenizer however they are spelled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from speculation.engines.files import (
    TOKENIZER_LIMIT_BYTES,
    check_size,
    confined,
    read_bounded_json,
    require,
    require_no_pointer,
)
from speculation.engines.manifest import TOKENIZER
from speculation.errors import PackageError

Meaning = dict[str, Any]
DEFAULTS = (None, False, "")
"""Values of a model's entries that mean the same as no entry."""


def load_tokenizer(path: Path, vocabulary_size: int, source: str, *, leaves_out: bool = False) -> Tokenizer:
    """The tokenizer in a file. ``source`` is the file that says the model's ``vocabulary_size``.

    With ``leaves_out``, tokens that were added beyond the model's vocabulary are left out (some families share a tokenizer with
    a model that sees pictures), and their spelling is text as any other. Raises ``PackageError`` when the file is no tokenizer,
    or has tokens that the model has not.
    """
    tokenizer = _read(path)
    if leaves_out and num_ids(tokenizer) > vocabulary_size:
        tokenizer = _parsed(path, _without_added(read_bounded_json(path, TOKENIZER_LIMIT_BYTES), vocabulary_size))
    # A prompt is neither cut nor filled up, whatever the training that the file comes from did.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    size = num_ids(tokenizer)
    require(size <= vocabulary_size, f"{path} has {size} tokens; {source} has a vocabulary of {vocabulary_size}")
    return tokenizer


def _read(path: Path) -> Tokenizer:
    check_size(path, TOKENIZER_LIMIT_BYTES)
    require_no_pointer(path)
    return _parsed(path, path.read_bytes())


def _parsed(path: Path, content: bytes) -> Tokenizer:
    try:
        return Tokenizer.from_buffer(content)
    except Exception as error:
        raise PackageError(f"{path} is not a tokenizer: {error}") from error


def _without_added(file: Meaning, vocabulary_size: int) -> bytes:
    kept = [token for token in file.get("added_tokens") or [] if token["id"] < vocabulary_size]
    return json.dumps(file | {"added_tokens": kept}).encode()


def num_ids(tokenizer: Tokenizer) -> int:
    """Rows that a model needs for all tokens: one more than the highest id, and no fewer than there are tokens."""
    vocabulary = tokenizer.get_vocab()
    return max([len(vocabulary), *(token_id + 1 for token_id in vocabulary.values())])


def num_ids_in(folder: Path) -> int:
    """``num_ids`` of ``tokenizer.json`` in a model's folder, added tokens beyond the model's vocabulary among them."""
    return num_ids(_read(confined(folder, TOKENIZER, "model")))


def meaning_of(folder: Path) -> Meaning:
    """What ``tokenizer.json`` of a model's folder does to a text, in one spelling: tokens with their ids, merges, added
    tokens, normaliser, pre-tokeniser. Not how a text is padded, cut or framed, nor how it is decoded.

    Raises ``PackageError`` for a file that is no tokenizer.
    """
    path = confined(folder, TOKENIZER, "model")
    file = read_bounded_json(path, TOKENIZER_LIMIT_BYTES)
    try:
        model = {key: value for key, value in file["model"].items() if value not in DEFAULTS}
        if "merges" in model:
            model["merges"] = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        added = sorted(file.get("added_tokens") or [], key=lambda token: token["id"])
        outside = {key: file.get(key) for key in ("normalizer", "pre_tokenizer")}
    except (AttributeError, KeyError, TypeError) as error:
        raise PackageError(f"{path} is not a tokenizer: {error!r}") from error
    return {"model": model, "added_tokens": added, **outside}


def difference(mine: Meaning, other: Meaning) -> str | None:
    """An example of what two tokenizers do not share, as ``mine`` against ``other``; None where they mean the same."""
    return next(_differences(mine, other), None)


def _differences(mine: Meaning, other: Meaning) -> Iterator[str]:
    yield from _token_differences(_ids(mine), _ids(other))
    merges = [meaning["model"].get("merges") or [] for meaning in (mine, other)]
    for number in range(max(map(len, merges))):
        pair = [known[number] if number < len(known) else None for known in merges]
        if pair[0] != pair[1]:
            yield f"merge {number} is {pair[0]!r} in one and {pair[1]!r} in the other"
    for part in mine:
        if mine[part] != other[part]:
            yield f"{part} is {_short(mine[part])} in one and {_short(other[part])} in the other"


def _token_differences(mine: Mapping[str, int], other: Mapping[str, int]) -> Iterator[str]:
    for token in (*mine, *other):
        if mine.get(token) != other.get(token):
            ids = [f"has the id {known[token]}" if token in known else "is missing" for known in (mine, other)]
            yield f"the token {token!r} {ids[0]} in one and {ids[1]} in the other"


def _ids(meaning: Meaning) -> dict[str, int]:
    """Ids by token. The vocabulary is an object of ids, or (Unigram) a list whose places are the ids."""
    known = meaning["model"].get("vocab") or {}
    ids = dict(known) if isinstance(known, dict) else {entry[0]: number for number, entry in enumerate(known)}
    return ids | {token["content"]: token["id"] for token in meaning["added_tokens"]}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
