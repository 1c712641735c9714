"""One session of the soak, on as many streams as its course has, and whether its text is that of plain decoding."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from benchmarks.processes.devices import Script
from benchmarks.soak_behaviour import Behaviour, Course, End
from benchmarks.soak_relay import relay_to
from speculation.engines.package import Pair
from speculation.errors import CapacityError, DeadlineError, OutriderError, SessionSupersededError
from speculation.links.grpc import GrpcConnector, GrpcLink
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import FinishReason

RETRIES = 30
DEPTH = 8
ENDS = {
    FinishReason.STOP: End.FINISHED,
    FinishReason.LENGTH: End.FINISHED,
    FinishReason.CANCELLED: End.CANCELLED,
    FinishReason.DEADLINE: End.DEADLINE,
}


class Talk:
    """A session of a device that drafts what was recorded."""

    def __init__(self, name: str, pair: Pair, course: Course, script: Script, connector: GrpcConnector) -> None:
        length = len(script.token_ids)
        self.course = course
        self.turn = course.turn(length)
        self.refusals = 0
        self.first_ms: float | None = None
        self.error: BaseException | None = None
        self._script = script
        self._connector = connector
        self._depth = DEPTH if course.has_drafts else 0
        self._expected = [*script.prompt, *script.token_ids[: course.max_tokens(length)]]
        self.session = DeviceSession(
            name,
            pair.identity,
            script.prompt,
            script.parameters,
            course.max_tokens(length),
            pair.full.end_token_ids,
            deadline_ms=course.deadline_ms,
        )

    @property
    def is_whole(self) -> bool:
        """Whether the text is that of plain decoding."""
        return list(self.session.final) == self._expected

    @property
    def is_beginning(self) -> bool:
        """Whether all that is final is a beginning of plain decoding's text."""
        return list(self.session.final) == self._expected[: len(self.session.final)]

    async def run(self) -> End:
        """How it ended. An error that nobody asked for is kept in ``error``."""
        try:
            return await _WAYS.get(self.course.behaviour, _read_whole)(self)
        except DeadlineError:
            return End.DEADLINE
        except _RefusedError:
            return End.REFUSED
        except (OutriderError, RuntimeError, OSError) as error:
            self.error = error
            return End.BROKEN

    @asynccontextmanager
    async def stream(self, connector: GrpcConnector | None = None) -> AsyncIterator[GrpcLink]:
        """The next attempt, let in. Whoever is refused keeps the delay and comes again."""
        link = await self._let_in(connector or self._connector)
        try:
            yield link
        finally:
            await link.aclose()

    @asynccontextmanager
    async def cut_at_turn(self) -> AsyncIterator[End | None]:
        """A first stream whose connection is gone once the turn has come; the end where that came sooner."""
        async with relay_to(self._connector.target) as (address, relay):
            connector = GrpcConnector(address)
            try:
                async with self.stream(connector) as link:
                    end = await self.read(link, self.turn)
                    relay.cut()
                yield end
            finally:
                await connector.aclose()

    async def read(self, link: GrpcLink, until: float = math.inf) -> End | None:
        """Draft and read to the end, or until so many tokens are final: then None."""
        while len(self.session.final) - self.session.generation_start < until:
            await self._draft(link)
            if self.course.read_delay_s:
                await asyncio.sleep(self.course.read_delay_s)
            message = await link.receive()
            if message is None:
                raise RuntimeError("the stream ended without Finished")
            if self.session.receive(message).tokens and self.first_ms is None:
                self.first_ms = 1000 * (time.monotonic() - self._let_in_s)
            if self.session.finish_reason is not None:
                return ENDS.get(self.session.finish_reason, End.BROKEN)
        return None

    async def close_sending(self, link: GrpcLink) -> None:
        """From here on it only listens."""
        await self._draft(link)
        self._depth = 0
        await link._call.done_writing()

    async def _draft(self, link: GrpcLink) -> None:
        self._script.draft(self.session, self._depth)
        if self._depth and (draft := self.session.flush()) is not None:
            await link.send(draft)

    async def _let_in(self, connector: GrpcConnector) -> GrpcLink:
        for _ in range(RETRIES):
            link = await connector.connect()
            self._let_in_s = time.monotonic()
            try:
                await link.send(self.session.open())
                await self._draft(link)
                if (message := await link.receive()) is None:
                    raise RuntimeError("the stream ended without Opened")
                self.session.receive(message)
            except CapacityError as error:
                await link.aclose()
                self.refusals += 1
                await asyncio.sleep(error.retry_after_s or 0.0)
            except BaseException:
                await link.aclose()
                raise
            else:
                return link
        raise _RefusedError


class _RefusedError(Exception):
    """The verifier was full every time."""


async def _read_whole(talk: Talk) -> End:
    async with talk.stream() as link:
        return _known(await talk.read(link))


async def _cancel(talk: Talk) -> End:
    async with talk.stream() as link:
        if (end := await talk.read(link, talk.turn)) is not None:
            return end
        await link.send(talk.session.cancel())
        return _known(await talk.read(link))


async def _vanish(talk: Talk) -> End:
    async with talk.cut_at_turn() as end:
        return end or End.CUT


async def _resume(talk: Talk) -> End:
    async with talk.cut_at_turn() as end:
        if end is not None:
            return end
        return await _read_whole(talk)


async def _close_half(talk: Talk) -> End:
    async with talk.stream() as link:
        if (end := await talk.read(link, talk.turn)) is not None:
            return end
        await talk.close_sending(link)
        return _known(await talk.read(link))


async def _overtake(talk: Talk) -> End:
    async with talk.stream() as older:
        if (end := await talk.read(older, talk.turn)) is not None:
            return end
        async with talk.stream() as link:
            await _hear_out(older)
            return _known(await talk.read(link))


async def _hear_out(older: GrpcLink) -> None:
    """The older stream ends by itself: it was taken over, or its text was over just before."""
    try:
        while await older.receive() is not None:
            pass
    except SessionSupersededError:
        pass


def _known(end: End | None) -> End:
    assert end is not None
    return end


_WAYS: dict[Behaviour, Callable[[Talk], Awaitable[End]]] = {
    Behaviour.CANCEL: _cancel,
    Behaviour.VANISH: _vanish,
    Behaviour.RESUME: _resume,
    Behaviour.HALF_CLOSE: _close_half,
    Behaviour.OVERTAKE: _overtake,
}
