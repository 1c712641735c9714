"""Rules that several fields of a request share; each raises ``InvalidRequestError`` by the name of the field. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from speculation.errors import InvalidRequestError
from speculation.text import MAX_STOPS

MAX_STOP_CHARACTERS = 256


def check_prompt(prompt: str) -> None:
    if not prompt:
        raise InvalidRequestError("the prompt is empty", "prompt")
    check_unicode(prompt, "prompt")


def check_unicode(text: str, key: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{key} is not valid Unicode: it holds bytes that are not UTF-8, or half of a surrogate pair", key
        ) from error


def check_stops(stops: Sequence[str]) -> None:
    require(len(stops) <= MAX_STOPS, "stop", f"at most {MAX_STOPS} strings", f"{len(stops)} of them")
    for stop in stops:
        require(
            0 < len(stop) <= MAX_STOP_CHARACTERS, "stop", f"strings of 1 to {MAX_STOP_CHARACTERS} characters", repr(stop)[:80]
        )
        check_unicode(stop, "stop")


def require(holds: bool, name: str, wanted: str, got: object) -> None:
    if not holds:
        raise InvalidRequestError(f"{name} must be {wanted}, not {got}", name)
