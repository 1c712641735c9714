"""Device-cloud collaboration for language models.

Public are ``outrider.client`` and ``outrider.DeviceAgent``; everything else may change in any release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outrider.embedding import DeviceAgent

__all__ = ["DeviceAgent"]


def __getattr__(name: str) -> Any:
    """Loads the agent when it is asked for: the command line starts without it."""
    if name == "DeviceAgent":
        from outrider.embedding import DeviceAgent

        return DeviceAgent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
