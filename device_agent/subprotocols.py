"""What a WebSocket says of itself when it is opened: the agent's subprotocol, and a key where no header can be sent. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from speculation.tenants import bearer

SUBPROTOCOL = "outrider"
_KEY = "key."


def key_among(subprotocols: Iterable[str]) -> str | None:
    """The ``authorization`` that subprotocols carry, None where none does: ``key.`` and a key in base64url without padding,
    as a key may have characters that a subprotocol may not. One that is no such is nobody's key.
    """
    for name in subprotocols:
        if name.startswith(_KEY):
            return bearer(_decode(name.removeprefix(_KEY)))
    return None


def key_name(key: str) -> str:
    """The subprotocol that carries a key."""
    return _KEY + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _decode(text: str) -> str:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
