"""What a client may ask for again: what runs, and for a while what has ended. Of the agent's memory alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar, Generic, Protocol, TypeVar

from device_agent.stream import Stream
from speculation.errors import SessionNotFoundError
from speculation.tenants import NOBODY, Tenant


class Ending(Protocol):
    """Something that is over some time, and calls back then."""

    def when_over(self, callback: Callable[[], None]) -> None: ...


Thing = TypeVar("Thing", bound=Ending)


class Kept(Generic[Thing]):
    """Things by id, each for the tenant that began it. One that has ended is forgotten after ``window_s``, or once
    ``max_ended`` others ended later.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, window_s: float, max_ended: int) -> None:
        self._window_s = window_s
        self._max_ended = max_ended
        self._things: dict[str, tuple[Thing, Tenant]] = {}
        self._ended: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._things)

    @property
    def num_running(self) -> int:
        return len(self._things) - len(self._ended)

    def keep_as(self, identity: str, thing: Thing, tenant: Tenant = NOBODY) -> None:
        """Of something that has begun."""
        self._things[identity] = thing, tenant
        thing.when_over(lambda: self._outlast(identity))

    def find(self, identity: str, tenant: Tenant = NOBODY) -> Thing:
        """Raises ``SessionNotFoundError``; in the same words for what is another tenant's."""
        thing, owner = self._things.get(identity, (None, NOBODY))
        if thing is None or owner.name != tenant.name:
            kept = f"{self.title} is kept for {self._window_s:g} s behind its end, and the last {self._max_ended} of them"
            raise SessionNotFoundError(f"no {self.name} {identity[:64]!r} is kept; {kept}")
        return thing

    def _outlast(self, identity: str) -> None:
        """It is over: from now on it is kept for a while."""
        self._ended[identity] = asyncio.get_running_loop().call_later(self._window_s, self._forget, identity)
        while len(self._ended) > self._max_ended:
            self._forget(next(iter(self._ended)))

    def _forget(self, identity: str) -> None:
        self._ended.pop(identity).cancel()
        del self._things[identity]


class KeptStreams(Kept[Stream]):
    """The streams that a client may read on."""

    name, title = "session", "an answer"

    def keep(self, stream: Stream, tenant: Tenant = NOBODY) -> None:
        """Of a stream that has begun."""
        self.keep_as(stream.session_id, stream, tenant)
