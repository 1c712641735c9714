"""Values of a JSON object, each judged by itself: the kinds that keys of requests have. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from device_agent.checks import require
from speculation.errors import InvalidRequestError, UnknownNameError


def text(key: str, value: object) -> str:
    """A string. Raises ``InvalidRequestError``."""
    if not isinstance(value, str):
        raise InvalidRequestError(f"{key} must be a string, not {_kind(value)}", key)
    return value


def whole(key: str, value: object) -> int:
    """A whole number, however JSON writes it. Raises ``InvalidRequestError``."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        got = value if isinstance(value, float) else _kind(value)
        raise InvalidRequestError(f"{key} must be a whole number, not {got}", key)
    return value


def flag(key: str, value: object) -> bool:
    """True or false. Raises ``InvalidRequestError``."""
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{key} must be true or false, not {_kind(value)}", key)
    return value


def number(key: str, value: object) -> float:
    """A finite number. Raises ``InvalidRequestError``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{key} must be a number, not {_kind(value)}", key)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    require(math.isfinite(number), key, "a finite number", value)
    return number


def stops(key: str, value: object) -> tuple[str, ...]:
    """One string or several. Raises ``InvalidRequestError``."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, Sequence):
        raise InvalidRequestError(f"{key} must be a string or a list of strings, not {_kind(value)}", key)
    return tuple(text(key, each) for each in texts)


def one_of(key: str, value: object, known: Iterable[str]) -> str:
    """One of the known names. Raises ``UnknownNameError``."""
    name = text(key, value)
    if name not in list(known):
        raise UnknownNameError(key, name, known, parameter=key)
    return name


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a string", dict: "an object"}
    return names.get(type(value), "a list")
