"""Which ports a replica may serve on: any that is free, one, or the first free one of a range. Pure."""

from __future__ import annotations

from speculation.errors import ConfigurationError

ANY_PORT = "0"


def parse_ports(text: str) -> range:
    """``0``, ``50060`` or ``50060-50067``. Raises ``ConfigurationError``."""
    first, dash, last = text.partition("-")
    is_number = all(part.isascii() and part.isdecimal() for part in ((first, last) if dash else (first,)))
    ports = range(int(first), int(last if dash else first) + 1) if is_number else range(0)
    if not ports or ports[-1] > 65535 or (dash and not ports[0]):
        raise ConfigurationError(f"replica_ports: {ANY_PORT} for any, a port, or a range such as 50060-50067 (got {text!r})")
    return ports


def turned(ports: range, number: int) -> list[int]:
    """The ports in the order in which the replica of that number tries them: each begins with another."""
    first = number % len(ports)
    return [*ports[first:], *ports[:first]]
