"""What toxiproxy calls a toxic, under its names: something bad that a proxy does to a stream, and is told while it runs. Pure.

Names, attributes and their meaning are toxiproxy's (github.com/Shopify/toxiproxy), so that its clients and its documentation
can be used. What is written wrongly is refused where toxiproxy ignores it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from speculation.errors import InvalidRequestError

MAX_ATTRIBUTE = 2**31 - 1

ATTRIBUTES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "latency": ("latency", "jitter"),
        "bandwidth": ("rate",),
        "slow_close": ("delay",),
        "timeout": ("timeout",),
        "reset_peer": ("timeout",),
        "slicer": ("average_size", "size_variation", "delay"),
        "limit_data": ("bytes",),
    }
)
"""Each type with its attributes, all whole numbers, 0 where they are left out.

Times are milliseconds, ``slicer.delay`` microseconds, ``bandwidth.rate`` 1,000 bytes a second (0: no limit), sizes bytes.
"""

_FIELDS = ("name", "type", "stream", "toxicity", "attributes")


class Stream(StrEnum):
    """From the client to the server, or back."""

    UPSTREAM = "upstream"
    DOWNSTREAM = "downstream"


@dataclass(frozen=True, slots=True)
class Toxic:
    """One toxic. ``toxicity`` is the chance that a connection gets it. Raises ``InvalidRequestError``."""

    name: str
    type: str
    stream: Stream
    toxicity: float
    attributes: Mapping[str, int]

    def __post_init__(self) -> None:
        if not 0 <= self.toxicity <= 1:
            raise InvalidRequestError(f"toxicity is a chance from 0 to 1, not {self.toxicity:g}", "toxicity")
        average, variation = (self.attributes.get(name, 0) for name in ("average_size", "size_variation"))
        if self.type == "slicer" and not 0 <= variation < average:
            raise InvalidRequestError("size_variation must be less than average_size", "attributes")

    def to_json(self) -> dict[str, Any]:
        attributes = {"attributes": dict(self.attributes)}
        return attributes | {"name": self.name, "type": self.type, "stream": self.stream.value, "toxicity": self.toxicity}


def toxic_from(fields: Mapping[str, Any]) -> Toxic:
    """A toxic from the body of a request: ``type``, and ``name``, ``stream``, ``toxicity`` and ``attributes`` where they are
    not <type>_<stream>, downstream, 1 and zeros. Raises ``InvalidRequestError``.
    """
    _refuse_unknown(fields, _FIELDS)
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in ATTRIBUTES:
        raise InvalidRequestError(f"invalid toxic type {kind!r}; known: {', '.join(ATTRIBUTES)}", "type")
    stream = _stream(fields.get("stream", Stream.DOWNSTREAM.value))
    name = fields.get("name") or f"{kind}_{stream.value}"
    if not isinstance(name, str):
        raise InvalidRequestError("the name of a toxic is a string", "name")
    check_name(name)
    attributes = _attributes(kind, fields.get("attributes", {}), {})
    return Toxic(name, kind, stream, _toxicity(fields.get("toxicity", 1.0)), attributes)


def updated(toxic: Toxic, fields: Mapping[str, Any]) -> Toxic:
    """The toxic with other ``attributes`` and ``toxicity``; its other fields stay, whatever a client repeats of them."""
    _refuse_unknown(fields, _FIELDS)
    attributes = _attributes(toxic.type, fields.get("attributes", {}), toxic.attributes)
    return Toxic(toxic.name, toxic.type, toxic.stream, _toxicity(fields.get("toxicity", toxic.toxicity)), attributes)


def _attributes(kind: str, given: object, before: Mapping[str, int]) -> Mapping[str, int]:
    if not isinstance(given, dict):
        raise InvalidRequestError("attributes is an object of numbers", "attributes")
    known = ATTRIBUTES[kind]
    _refuse_unknown(given, known)
    for name, value in given.items():
        if not (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ATTRIBUTE):
            raise InvalidRequestError(f"{name} is a whole number from 0 to {MAX_ATTRIBUTE}, not {value!r}", "attributes")
    return MappingProxyType({name: given.get(name, before.get(name, 0)) for name in known})


def _stream(given: object) -> Stream:
    if given not in [stream.value for stream in Stream]:
        raise InvalidRequestError("stream was invalid, can be either upstream or downstream", "stream")
    return Stream(given)


def _toxicity(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise InvalidRequestError("toxicity is a chance from 0 to 1", "toxicity")
    try:
        return float(given)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def check_name(name: str) -> None:
    """Of a proxy or a toxic: a part of paths, and of answers in UTF-8. Raises ``InvalidRequestError``."""
    if "/" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise InvalidRequestError(f"a name has no slash in it, and no half of a surrogate pair, unlike {name[:80]!r}", "name")


def _refuse_unknown(fields: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in fields:
        if name not in known:
            raise InvalidRequestError(f"unknown field {name!r}; known: {', '.join(known)}", str(name))
