"""Several verifiers behind one connector: each stream picks one when its ``Open`` is sent, and stays with it.

Where a stream breaks or is refused, its error says whether another verifier is there to take the session at once
(``can_go_elsewhere``): who holds the session then opens a new stream, with what is final by now, and that goes elsewhere.
What a session loses one behind the other is one run, until a verifier takes it: each that was well when the run began is asked
once, however long that takes and however soon one says that it may be asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from speculation.errors import AuthenticationError, CapacityError, HandshakeError, LinkError, OutriderError
from speculation.links.base import Connector, Link, LinkStatistics
from speculation.links.places import Place, pick
from speculation.links.resolvers import Resolver
from speculation.protocol.messages import CloudMessage, DeviceMessage, Finished, FinishReason, Open, Opened

MOST_RUNS = 1024
"""Sessions of which it is known since when they lose one verifier after the other; one that is left in its run tells nobody."""

_log = logging.getLogger(__name__)


class MultiConnector:
    """Opens streams to the verifiers that ``resolver`` names, each by a connector that ``connect_to`` makes of its target.

    Enter it before the first ``connect``: it asks the resolver again every ``resolver.period_s`` seconds, and whenever a stream
    breaks. A verifier that the resolver names no more gets no new streams; those that are there go on.
    """

    def __init__(self, resolver: Resolver, connect_to: Callable[[str], Connector]) -> None:
        self._resolver = resolver
        self._connect_to = connect_to
        self._places: dict[str, Place] = {}
        self._named: tuple[str, ...] = ()
        self._lost_since_s: dict[str, float] = {}
        self._fault: LinkError | None = None
        self._is_asked = asyncio.Event()
        self._ask_again = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._following = self._tasks.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        try:
            await self.aclose()
        finally:
            if tasks is not None:  # not told of the body's error, which it would wrap in a group
                await tasks.__aexit__(None, None, None)

    async def connect(self) -> Link:
        """A stream that is nowhere yet: what connecting may raise, sending its ``Open`` raises."""
        return MultiLink(self)

    async def aclose(self) -> None:
        """Close every connection and every stream on it. Safe to call twice."""
        if self._following is not None:
            self._following.cancel()
        places, self._places, self._named = self._places, {}, ()
        for place in places.values():
            await place.connector.aclose()
        await self._resolver.aclose()

    async def begin(self, session_id: str) -> tuple[Place, Link]:
        """A stream for a session, to the verifier that is picked for it. Raises ``LinkError``."""
        if self._following is None:
            raise LinkError("the connector is not open: use it inside its 'async with'")
        await self._is_asked.wait()
        now_s = _now_s()
        place = pick(self._named_places(), session_id, self._lost_since_s.get(session_id, now_s))
        if place is None:
            self.run_ends(session_id)
            self._ask_again.set()
            raise LinkError("there is no verifier now" if self._fault is None else str(self._fault))
        place.tried(now_s)
        place.num_streams += 1
        try:
            return place, await place.connector.connect()
        except BaseException as error:
            place.num_streams -= 1
            if isinstance(error, OutriderError):
                self.lost(place, session_id, error)
            raise

    def lost(self, place: Place, session_id: str, error: OutriderError) -> None:
        """A stream to ``place`` ended with ``error``, which is told here whether another verifier is there."""
        now_s = _now_s()
        match error:
            case CapacityError():
                place.refused(now_s, error.retry_after_s)
            case LinkError() | HandshakeError() | AuthenticationError():
                place.failed(now_s)
                self._ask_again.set()
            case _:
                return
        since_s = self._lost_since_s.setdefault(session_id, now_s)
        error.can_go_elsewhere = any(other.is_well(since_s) for other in self._named_places())
        if not error.can_go_elsewhere:
            self.run_ends(session_id)
        elif len(self._lost_since_s) > MOST_RUNS:
            self.run_ends(next(iter(self._lost_since_s)))

    def run_ends(self, session_id: str) -> None:
        """A verifier took the session, or there is none for it: what is lost from here on is another run."""
        self._lost_since_s.pop(session_id, None)

    def _named_places(self) -> list[Place]:
        for target in self._named:
            if target not in self._places:
                self._places[target] = Place(target, self._connect_to(target))
        return [self._places[target] for target in self._named]

    async def _follow(self) -> None:
        """Ask who is there, for as long as this task lives."""
        while True:
            self._ask_again.clear()
            await self._ask()
            self._is_asked.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._resolver.period_s):
                    await self._ask_again.wait()

    async def _ask(self) -> None:
        """The names stay as they were where nobody tells others."""
        try:
            named = tuple(dict.fromkeys(await self._resolver.targets()))
        except LinkError as error:
            if self._fault is None:
                _log.warning("%s; the verifiers that are known: %s", error, ", ".join(self._named) or "none")
            self._fault = error
            return
        self._fault, self._named = None, named
        await self._forget()

    async def _forget(self) -> None:
        """Close the connections to verifiers that are named no more, once no stream is left there."""
        for target in [target for target, place in self._places.items() if not place.num_streams and target not in self._named]:
            await self._places.pop(target).connector.aclose()


class MultiLink:
    """One stream; to which verifier is settled by its ``Open``, which must come first."""

    def __init__(self, verifiers: MultiConnector) -> None:
        self.statistics = LinkStatistics()
        self._verifiers = verifiers
        self._session_id = ""
        self._place: Place | None = None
        self._link: Link | None = None
        self._unreached: OutriderError | None = None
        self._is_finished = self._is_closed = False

    async def send(self, message: DeviceMessage) -> None:
        """Hand a message over. Raises ``LinkError`` with ``Open`` where no verifier is reached; so does ``receive`` then."""
        if self._link is None and isinstance(message, Open) and not self._is_closed:
            await self._begin(message.session_id)
        if self._is_closed:
            await self._leave()
        try:
            await self._begun.send(message)
        except OutriderError as error:
            self._lost(error)
            raise
        self._count()

    async def receive(self) -> CloudMessage | None:
        """The next message, None behind ``Finished``. A verifier that shuts down, or closes before, is one that is lost."""
        try:
            message = await self._begun.receive()
            self._count()
            self._note(message)
        except OutriderError as error:
            self._lost(error)
            raise
        return message

    async def aclose(self) -> None:
        self._is_closed = True
        await self._leave()

    async def _begin(self, session_id: str) -> None:
        self._session_id = session_id
        try:
            self._place, self._link = await self._verifiers.begin(session_id)
        except OutriderError as error:  # what is sent over a network that is played is sent for somebody who only listens
            self._unreached = error
            raise

    @property
    def _begun(self) -> Link:
        if self._unreached is not None and not self._is_closed:
            raise self._unreached
        if self._link is None or self._is_closed:
            raise LinkError("the link was closed" if self._is_closed else "nothing was opened on this link: send Open first")
        return self._link

    def _note(self, message: CloudMessage | None) -> None:
        if message is None and not self._is_finished:
            raise LinkError("the verifier closed the stream before the answer was over")
        if isinstance(message, Finished):
            self._is_finished = True
            if message.reason is FinishReason.SHUTDOWN:
                raise LinkError("the verifier ended the session: it is shutting down")
        if isinstance(message, Opened) and self._place is not None:
            self._place.served()
            self._verifiers.run_ends(self._session_id)

    def _lost(self, error: OutriderError) -> None:
        """A link that this end closed is no verifier's fault."""
        if self._place is not None and not self._is_closed:
            self._verifiers.lost(self._place, self._session_id, error)

    async def _leave(self) -> None:
        place, self._place = self._place, None
        if place is not None:
            place.num_streams -= 1
        if self._link is not None:
            await self._link.aclose()

    def _count(self) -> None:
        """What the inner link has counted: its statistics are not there before it is."""
        if self._link is not None:
            own, counted = self.statistics, self._link.statistics
            own.sent_messages, own.sent_bytes = counted.sent_messages, counted.sent_bytes
            own.received_messages, own.received_bytes = counted.received_messages, counted.received_bytes


def _now_s() -> float:
    return asyncio.get_running_loop().time()
