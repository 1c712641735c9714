"""What settings may ask of telemetry; without the libraries that do it, which a command line need not load."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal
from urllib.parse import urlsplit

from speculation.errors import ConfigurationError

Compat = Literal["vllm"]
"""Whose names figures have besides their own."""


class LogFormat(StrEnum):
    """How a service writes its log: for people, or one JSON object a line."""

    TEXT = "text"
    JSON = "json"


def read_endpoint(value: object) -> object:
    """The address of a collector, ``http://host:port`` or ``https://host:port``, or None. Raises ``ConfigurationError``."""
    if value is None:
        return None
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and bool(parts.port)
    except ValueError:
        is_address = False
    if not is_address or parts.username is not None or parts.path.strip("/") or parts.query:
        raise ConfigurationError("otlp_endpoint: the address of a collector, like http://127.0.0.1:4317")
    return value
