"""What a request may ask of retrieval: the key ``retrieve``, read by itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from speculation.errors import InvalidRequestError, UnknownNameError

DEFAULT_CHUNKS, MAX_CHUNKS = 4, 32


class Private(StrEnum):
    """What is done where a private document answers best: the device answers alone; private text is left out; or it feeds the
    drafts alone, which are seen by the verifier."""

    DEVICE = "device"
    WITHHOLD = "withhold"
    DRAFTS = "drafts"


class Into(StrEnum):
    """Where shared text goes: before the prompt and into the drafts, or into the drafts alone, which changes no text."""

    PROMPT = "prompt"
    DRAFTS = "drafts"


@dataclass(frozen=True, slots=True)
class Retrieve:
    """How a request uses the store: at most ``k`` chunks."""

    k: int = DEFAULT_CHUNKS
    private: Private = Private.DEVICE
    into: Into = Into.PROMPT


def read_retrieve(key: str, value: object) -> Retrieve | None:
    """``true``, ``false``, or an object with ``k``, ``private`` and ``into``. Raises ``InvalidRequestError``."""
    if isinstance(value, bool):
        return Retrieve() if value else None
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"{key} must be true, false, or an object with {', '.join(_FIELDS)}", key)
    unknown = next((name for name in value if name not in _FIELDS), None)
    if unknown is not None:
        raise UnknownNameError(f"key in {key}", str(unknown), _FIELDS, parameter=key)
    k = value.get("k", DEFAULT_CHUNKS)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_CHUNKS:
        raise InvalidRequestError(f"{key}.k must be a whole number from 1 to {MAX_CHUNKS}, not {k!r}", key)
    private = _one_of(f"{key}.private", value.get("private", Private.DEVICE), Private)
    into = _one_of(f"{key}.into", value.get("into", Into.PROMPT), Into)
    return Retrieve(k, Private(private), Into(into))


_FIELDS = tuple(Retrieve.__dataclass_fields__)


def _one_of(name: str, value: object, known: type[StrEnum]) -> str:
    if not isinstance(value, str) or value not in list(known):
        raise UnknownNameError(name, str(value), known, parameter=name.partition(".")[0])
    return value
