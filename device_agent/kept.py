"""The streams that a client may read on: those that run, and for a while those that have ended. Of the agent's memory alone."""

from __future__ import annotations

import asyncio

from device_agent.stream import Stream
from speculation.errors import SessionNotFoundError
from speculation.tenants import NOBODY, Tenant


class KeptStreams:
    """Streams by session id, each for the tenant that began it. One that has ended is forgotten after ``window_s``, or once
    ``max_ended`` others ended later.
    """

    def __init__(self, window_s: float, max_ended: int) -> None:
        self._window_s = window_s
        self._max_ended = max_ended
        self._streams: dict[str, tuple[Stream, Tenant]] = {}
        self._ended: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def keep(self, stream: Stream, tenant: Tenant = NOBODY) -> None:
        """Of a stream that has begun."""
        self._streams[stream.session_id] = stream, tenant
        stream.when_over(lambda: self._outlast(stream.session_id))

    def find(self, session_id: str, tenant: Tenant = NOBODY) -> Stream:
        """Raises ``SessionNotFoundError``; in the same words for a stream of another tenant."""
        stream, owner = self._streams.get(session_id, (None, NOBODY))
        if stream is None or owner.name != tenant.name:
            kept = f"an answer is kept for {self._window_s:g} s behind its end, and the last {self._max_ended} of them"
            raise SessionNotFoundError(f"no session {session_id[:64]!r} is kept; {kept}")
        return stream

    def _outlast(self, session_id: str) -> None:
        """The answer is over: from now on it is kept for a while."""
        forget = asyncio.get_running_loop().call_later(self._window_s, self._forget, session_id)
        self._ended[session_id] = forget
        while len(self._ended) > self._max_ended:
            self._forget(next(iter(self._ended)))

    def _forget(self, session_id: str) -> None:
        self._ended.pop(session_id).cancel()
        del self._streams[session_id]
