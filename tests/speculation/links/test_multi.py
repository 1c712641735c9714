"""One connector for several verifiers: where streams go, and what their errors say."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from speculation.errors import CapacityError, EngineError, HandshakeError, LinkError, OutriderError
from speculation.links.memory import MemoryConnector
from speculation.links.multi import MultiConnector
from speculation.links.resolvers import FixedList
from speculation.protocol.messages import Finished, FinishReason, Opened, Usage
from speculation.shaping import virtual_time
from tests.speculation.links.endpoint import OPEN, Script

OPENED = Opened("s", 32, "f")
DONE = Finished(FinishReason.LENGTH, Usage())
SHUTDOWN = Finished(FinishReason.SHUTDOWN, Usage())


class Absent:
    """A verifier that cannot be reached."""

    def __init__(self, after_s=0.0):
        self.num_asked = 0
        self._after_s = after_s

    async def connect(self):
        self.num_asked += 1
        await asyncio.sleep(self._after_s)
        raise LinkError("there is no verifier")

    async def aclose(self):
        pass


class Watched(MemoryConnector):
    """A verifier that says what it is told to; notes whether its connection was closed."""

    is_closed = False

    async def aclose(self):
        self.is_closed = True


class Changing(FixedList):
    """A resolver whose answer a test changes; an error is raised."""

    period_s = 3.0

    def __init__(self, *targets):
        self.answer = targets
        self.num_asked = 0

    async def targets(self):
        self.num_asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@contextlib.asynccontextmanager
async def several(resolver=None, **connectors):
    async with MultiConnector(resolver or FixedList(tuple(connectors)), connectors.__getitem__) as made:
        yield made


async def opened(verifiers, session_id="s"):
    link = await verifiers.connect()
    await link.send(replace(OPEN, session_id=session_id))
    return link


def run(test):
    """On a virtual clock, where an hour takes no time."""
    return virtual_time.run(test())


async def loss(link):
    """What a stream ends with, behind all that came before."""
    try:
        while await link.receive() is not None:
            pass
    except OutriderError as error:
        return error
    raise AssertionError("it ended in order")


def test_streams_spread_over_the_verifiers_and_are_counted():
    async def work():
        scripts = {name: Script([OPENED], stays_open=True) for name in ("a", "b", "c")}
        async with several(**{name: MemoryConnector(script) for name, script in scripts.items()}) as verifiers:
            links = [await opened(verifiers, f"s{number}") for number in range(6)]
            assert [len(script.received) for script in scripts.values()] == [2, 2, 2]
            assert await links[0].receive() == OPENED
            counted = links[0].statistics
            assert (counted.sent_messages, counted.received_messages) == (1, 1)
            assert counted.sent_bytes > counted.received_bytes > 0
            for link in links:
                await link.aclose()

    run(work)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script([OPENED], error=LinkError("gone")), LinkError),
        (Script(error=CapacityError("full", 2.0)), CapacityError),
        (Script(error=HandshakeError("another pair")), HandshakeError),
        (Script([OPENED, SHUTDOWN]), LinkError),
        (Script([OPENED]), LinkError),
    ],
)
@pytest.mark.parametrize("has_other", [True, False])
def test_a_loss_says_whether_another_verifier_is_there(script, kind, has_other):
    async def work():
        others = {"b": MemoryConnector(Script([OPENED, DONE]))} if has_other else {}
        async with several(a=MemoryConnector(Script(list(script.messages), script.error)), **others) as verifiers:
            links = [await opened(verifiers, f"s{number}") for number in range(2)]
            error = await loss(next(link for link in links if link._place.target == "a"))
            assert type(error) is kind
            assert error.can_go_elsewhere is has_other

    run(work)


def test_a_verifier_that_cannot_be_reached_is_passed_over_and_tried_again_later():
    async def work():
        async with several(a=Absent(), b=MemoryConnector(Script([OPENED], stays_open=True))) as verifiers:
            told = []
            for number in range(9):
                try:
                    await opened(verifiers, f"s{number}")
                except LinkError as error:
                    told.append(error.can_go_elsewhere)
            assert told == [True]

    run(work)


def test_who_only_listens_is_told_why_no_verifier_was_reached_and_whether_another_is_there():
    async def work():
        async with several(a=Absent(), b=Absent()) as verifiers:
            told = []
            for _ in range(2):
                link = await verifiers.connect()
                for what in (link.send(OPEN), link.receive()):
                    with pytest.raises(LinkError, match="there is no verifier") as refused:
                        await what
                    told.append(refused.value.can_go_elsewhere)
            assert told == [True, True, False, False]

    run(work)


def test_where_none_can_be_reached_nothing_is_tried_at_once_for_ever():
    async def work():
        async with several(a=Absent(), b=Absent()) as verifiers:
            told = []
            for _ in range(3):
                with pytest.raises(LinkError) as refused:
                    await opened(verifiers)
                told.append(refused.value.can_go_elsewhere)
            assert told == [True, False, False]

    run(work)


async def run_of_losses(verifiers, session_id="s"):
    """Open elsewhere for as long as a loss says so; how many there were, at most so many."""
    for count in range(1, 20):
        try:
            await loss(await opened(verifiers, session_id))
        except LinkError as error:
            if not error.can_go_elsewhere:
                return count
    raise AssertionError("the verifiers are asked in turns, for ever")


@pytest.mark.parametrize("number", [2, 3, 5])
def test_where_attempts_take_longer_than_one_is_passed_over_each_is_asked_once_all_the_same(number):
    """As in a network that swallows all: each attempt lasts as long as it may."""

    async def work():
        absent = {f"v{place}": Absent(5.0) for place in range(number)}
        async with several(**absent) as verifiers:
            for runs in (1, 2):
                assert await run_of_losses(verifiers) == number
                assert [one.num_asked for one in absent.values()] == [runs] * number

    run(work)


@pytest.mark.parametrize("delay_s", [1e-3, -1.0, 0.5])
def test_full_ones_that_may_be_asked_again_at_once_are_asked_once_before_there_is_a_pause(delay_s):
    class Full(Script):
        async def next(self):
            await asyncio.sleep(0.6)
            return await super().next()

    async def work():
        full = {name: Full(error=CapacityError("full", delay_s)) for name in "abc"}
        async with several(**{name: MemoryConnector(script) for name, script in full.items()}) as verifiers:
            told = [True]
            while told[-1] and len(told) < 12:
                link = await opened(verifiers)
                told.append((await loss(link)).can_go_elsewhere)
                await link.aclose()
        assert told[1:] == [True, True, False]
        assert [len(script.received) for script in full.values()] == [1, 1, 1]

    run(work)


def test_what_is_lost_behind_a_verifier_that_took_the_session_is_another_run():
    async def work():
        breaking = {name: Script([OPENED], error=LinkError("gone")) for name in "ab"}
        async with several(**{name: MemoryConnector(script) for name, script in breaking.items()}) as verifiers:
            told = []
            for _ in range(2):
                link = await opened(verifiers)
                await link.receive()
                await asyncio.sleep(60)  # for so long it is well
                told.append((await loss(link)).can_go_elsewhere)
                await link.aclose()
        assert told == [True, True]

    run(work)


def test_an_error_that_is_the_sessions_own_leaves_the_verifier_as_it_was():
    async def work():
        failing = {name: MemoryConnector(Script([OPENED], error=EngineError("out of memory"))) for name in "ab"}
        async with several(**failing) as verifiers:
            error = await loss(await opened(verifiers))
            assert not error.can_go_elsewhere

    run(work)


def test_the_resolver_is_asked_again_in_time_and_at_once_when_a_stream_breaks():
    async def work():
        resolver = Changing("a", "b")
        made = {"a": Watched(Script([OPENED], stays_open=True)), "b": Watched(Script([OPENED], error=LinkError("gone")))}
        async with several(resolver, **made) as verifiers:
            links = [await opened(verifiers, f"s{number}") for number in range(2)]
            assert resolver.num_asked == 1
            await asyncio.sleep(3.5)
            assert resolver.num_asked == 2
            resolver.answer = ("a",)
            lost = next(link for link in links if link._place.target == "b")
            await loss(lost)
            await lost.aclose()
            await asyncio.sleep(0.1)
            assert resolver.num_asked == 3
            await asyncio.sleep(3.5)
            assert made["b"].is_closed
            assert not made["a"].is_closed
        assert made["a"].is_closed

    run(work)


def test_a_verifier_that_is_named_no_more_keeps_its_streams_and_gets_no_new_ones():
    async def work():
        resolver = Changing("a")
        made = {name: Watched(Script([OPENED, DONE], stays_open=True)) for name in "ab"}
        async with several(resolver, **made) as verifiers:
            old = await opened(verifiers, "old")
            resolver.answer = ("b",)
            await asyncio.sleep(3.5)
            new = await opened(verifiers, "new")
            assert (old._place.target, new._place.target) == ("a", "b")
            assert await old.receive() == OPENED
            await old.aclose()
            await new.aclose()

    run(work)


def test_a_resolver_that_fails_is_told_once_and_leaves_the_names_as_they_were(caplog):
    async def work():
        resolver = Changing("a")
        async with several(resolver, a=MemoryConnector(Script([OPENED], stays_open=True))) as verifiers:
            await opened(verifiers, "first")
            resolver.answer = LinkError("http://head does not answer")
            await asyncio.sleep(60)
            assert await (await opened(verifiers, "second")).receive() == OPENED

    run(work)
    assert [record.getMessage() for record in caplog.records] == [
        "http://head does not answer; the verifiers that are known: a"
    ]


def test_without_any_name_a_stream_says_what_the_resolver_said():
    async def work():
        resolver = Changing()
        resolver.answer = LinkError("http://head does not answer")
        async with several(resolver, a=Absent()) as verifiers:
            with pytest.raises(LinkError, match="http://head does not answer"):
                await opened(verifiers)
            resolver.answer = ()
            await asyncio.sleep(3.5)
            with pytest.raises(LinkError, match="there is no verifier now"):
                await opened(verifiers)

    run(work)


async def test_a_connector_that_nobody_entered_says_so():
    link = await MultiConnector(FixedList(["a:1"]), lambda _: Absent()).connect()
    with pytest.raises(LinkError, match="async with"):
        await link.send(OPEN)
