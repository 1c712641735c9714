"""The device's end of a covered stream, under the virtual clock: what leaves when, and that nothing leaves behind the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from speculation.errors import InvalidRequestError, LinkError
from speculation.links.base import LinkStatistics
from speculation.links.covered import CoveredConnector
from speculation.protocol.cover import UNCOVERED, Cover
from speculation.protocol.fillers import FILLER_UP, filler_down
from speculation.protocol.messages import Cancel, Draft, Finished, FinishReason, Node, Open, Opened, Usage
from speculation.shaping import virtual_time
from tests.speculation.links.endpoint import OPEN

TICK = Cover(256, 250)
"""A quarter of a second: times add up exactly."""
DRAFT = Draft((Node(1, 0, 7, root_position=3),), 3)
OPENED = Opened("s", 64, "f" * 16, cover=TICK)
FINISHED = Finished(FinishReason.LENGTH, Usage())


class FarEnd:
    """The link beneath: notes what leaves and when, and says what it is told to."""

    def __init__(self) -> None:
        self.statistics = LinkStatistics()
        self.left: list[tuple[float, object]] = []
        self.answers: asyncio.Queue = asyncio.Queue()
        self.error: Exception | None = None
        self.is_closed = False

    async def send(self, message) -> None:
        if self.error is not None:
            raise self.error
        self.left.append((now_s(), message))

    async def receive(self):
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def aclose(self) -> None:
        self.is_closed = True


class FarEnds:
    def __init__(self) -> None:
        self.end = FarEnd()
        self.num_closed = 0

    async def connect(self) -> FarEnd:
        return self.end

    async def aclose(self) -> None:
        self.num_closed += 1


def now_s() -> float:
    return asyncio.get_running_loop().time()


def covered(test, cover=TICK):
    """What left, and when, while ``test(link, end)`` ran; all tasks have ended when this returns, or it would never."""
    far = FarEnds()

    async def work():
        async with CoveredConnector(far, cover) as connector:
            await test(await connector.connect(), far.end)
        assert len(asyncio.all_tasks()) == 1
        assert far.num_closed >= 1

    virtual_time.run(work())
    return far.end.left


def test_open_leaves_at_once_and_all_else_on_the_tick():
    async def test(link, _):
        await asyncio.sleep(0.1)
        await link.send(OPEN)
        await asyncio.sleep(0.3)
        await link.send(DRAFT)
        assert now_s() == pytest.approx(0.6)

    (opened_s, opening), *others = covered(test)
    assert (opened_s, opening.cover) == (0.1, TICK)
    assert others == [(pytest.approx(0.35), FILLER_UP), (pytest.approx(0.6), DRAFT)]


def test_what_comes_at_once_leaves_one_a_tick_and_in_order():
    async def test(link, _):
        await link.send(OPEN)
        await asyncio.gather(link.send(DRAFT), link.send(Draft((), 4)), link.send(Cancel()))

    assert covered(test)[1:] == [(0.25, DRAFT), (0.5, Draft((), 4)), (0.75, Cancel())]


def test_a_message_that_is_taken_back_before_its_tick_never_leaves():
    async def test(link, _):
        await link.send(OPEN)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await link.send(DRAFT)
        await asyncio.sleep(0.2)

    assert covered(test)[1:] == [(0.25, FILLER_UP)]


@pytest.mark.parametrize("ending", [FINISHED, None, LinkError("cut"), "close"], ids=["finished", "end", "cut", "closed"])
def test_nothing_leaves_behind_the_end(ending):
    async def test(link, end):
        await link.send(OPEN)
        await asyncio.sleep(0.6)
        if ending == "close":
            await link.aclose()
        else:
            end.answers.put_nowait(ending)
            with contextlib.suppress(LinkError):
                await link.receive()
        await asyncio.sleep(5)

    assert [at_s for at_s, _ in covered(test)] == [0, 0.25, 0.5]


def test_a_link_that_never_began_ends_with_its_connector():
    async def test(link, _):
        await asyncio.sleep(1)

    assert covered(test) == []


def test_whoever_waits_for_a_tick_is_let_go_at_the_end():
    async def test(link, end):
        await link.send(OPEN)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(link.send(DRAFT))
            await asyncio.sleep(0.1)
            end.answers.put_nowait(FINISHED)
            await link.receive()
        assert now_s() == pytest.approx(0.1)

    assert len(covered(test)) == 1


def test_what_the_inner_link_refuses_is_raised_to_who_sends_it():
    async def test(link, end):
        await link.send(OPEN)
        end.error = InvalidRequestError("too large")
        with pytest.raises(InvalidRequestError):
            await link.send(DRAFT)
        with pytest.raises(InvalidRequestError):
            await link.send(DRAFT)

    covered(test)


def test_where_open_does_not_leave_nobody_waits_for_a_tick():
    """As of several verifiers none of which can be reached: who hangs up says so to nobody, at once."""

    async def test(link, end):
        end.error = LinkError("there is no verifier now")
        for message in (OPEN, Cancel()):
            with pytest.raises(LinkError):
                async with asyncio.timeout(60):
                    await link.send(message)
        assert now_s() == 0

    assert covered(test) == []


def test_fillers_are_not_received():
    async def test(link, end):
        await link.send(OPEN)
        for message in (OPENED, filler_down(1), filler_down(1), FINISHED):
            end.answers.put_nowait(message)
        assert [await link.receive(), await link.receive()] == [OPENED, FINISHED]

    covered(test)


def test_without_a_cover_open_is_sent_as_it_is_and_nothing_waits():
    async def test(link, end):
        await link.send(OPEN)
        await link.send(DRAFT)
        assert now_s() == 0
        await asyncio.sleep(5)

    assert covered(test, UNCOVERED) == [(0, OPEN), (0, DRAFT)]


@pytest.mark.parametrize(("told", "is_said"), [(TICK, False), (Cover(1024, 500), False), (UNCOVERED, True), (Cover(256), True)])
def test_a_verifier_that_does_less_than_it_was_asked_for_is_said_aloud(told, is_said, caplog):
    async def test(link, end):
        await link.send(OPEN)
        end.answers.put_nowait(Opened("s", 64, "f", cover=told))
        await link.receive()

    with caplog.at_level(logging.WARNING):
        covered(test)
    assert ("does not cover" in caplog.text) == is_said


def test_a_connector_is_used_inside_its_block():
    async def work():
        with pytest.raises(LinkError, match="async with"):
            await CoveredConnector(FarEnds(), TICK).connect()

    virtual_time.run(work())


def test_open_asks_for_what_the_connector_was_made_with():
    async def test(link, _):
        await link.send(OPEN)

    ((_, opening),) = covered(test, Cover(pad_bytes=64))
    assert isinstance(opening, Open)
    assert opening.cover == Cover(64)
