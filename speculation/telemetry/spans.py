"""Spans, whatever records them: what a service tells of one request, and a tracer that records nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

TRACEPARENT = "traceparent"
"""Name of the header, and of the gRPC metadata, that says which span is the parent (W3C Trace Context)."""

Attribute = str | bool | int | float | Sequence[str]


class Span(Protocol):
    """One request at one service. No attribute holds a prompt, or any other text of a user or a model."""

    @property
    def traceparent(self) -> str | None:
        """What makes another service's span a child of this one; None where nothing is recorded."""

    def tell(self, attributes: Mapping[str, Attribute | None]) -> None:
        """Add attributes; None is left out."""

    def fail(self, kind: str) -> None:
        """It came to an error of this kind. Its message is not told: it may quote what a user sent."""

    def end(self) -> None:
        """Once, at the end."""


class Tracer(Protocol):
    """Starts the spans of one service."""

    def start(self, name: str, attributes: Mapping[str, Attribute | None], parent: str | None = None) -> Span:
        """A span that begins now. ``parent`` is a ``traceparent`` that came from outside; one that means nothing is none."""

    def close(self) -> None:
        """Hand over what is recorded; may take seconds, and belongs on a thread."""


class _Unrecorded:
    traceparent = None

    def tell(self, attributes: Mapping[str, Attribute | None]) -> None: ...

    def fail(self, kind: str) -> None: ...

    def end(self) -> None: ...


class _Untraced:
    def start(self, name: str, attributes: Mapping[str, Attribute | None], parent: str | None = None) -> Span:
        return _UNRECORDED

    def close(self) -> None: ...


_UNRECORDED: Span = _Unrecorded()
UNTRACED: Tracer = _Untraced()
