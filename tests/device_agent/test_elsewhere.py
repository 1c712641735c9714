"""An agent that knows several verifiers loses one in mid-answer, and the text goes on at another."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel
from cloud_verifier.server import serve
from device_agent.elsewhere import with_one_after_another
from speculation.engines.self_test import SelfTest
from speculation.errors import AuthenticationError, CapacityError, HandshakeError, LinkError
from speculation.links.grpc import GrpcConnector
from speculation.links.memory import MemoryConnector
from speculation.links.multi import MultiConnector
from speculation.links.resolvers import FixedList
from speculation.shaping import virtual_time
from speculation.shaping.link import ShapedConnector
from speculation.shaping.profiles import network
from tests.device_agent.doubles import (
    IDENTITY,
    DraftEngine,
    FullEngine,
    SlowEngine,
    WatchedConnector,
    agent_of,
    answer,
    plain_decoding,
    request,
    verifier,
)

PASS_S = 0.3
LIMIT_S = 30


class Breaking(WatchedConnector):
    """The first streams break, wherever they lead, each after so many messages; the lengths are shared by several."""

    def __init__(self, connector, limits):
        super().__init__(connector)
        self._limits = limits

    async def connect(self):
        self._limit = self._limits.pop(0) if self._limits else None
        return await super().connect()


@contextlib.asynccontextmanager
async def several(num_verifiers, *limits, draft=None, **changes):
    """An agent with so many verifiers, whose first streams break after so many messages."""
    async with contextlib.AsyncExitStack() as stack:
        made = [await stack.enter_async_context(verifier(SlowEngine(PASS_S), **changes)) for _ in range(num_verifiers)]
        left = list(limits)
        connectors = {f"v{number}": Breaking(MemoryConnector(one), left) for number, one in enumerate(made)}
        verifiers = MultiConnector(FixedList(tuple(connectors)), connectors.__getitem__)
        running = agent_of(verifiers, draft or DraftEngine(0.7, step_s=0.05))
        yield await stack.enter_async_context(running), made, connectors


def run(num_verifiers, *limits, mode="collaborate"):
    """The answer in one mode, and to how many verifiers it led."""

    async def work():
        async with several(num_verifiers, *limits) as (running, made, connectors):
            replay = await answer(running, mode=mode)
            assert [one.num_sessions for one in made] == [0] * len(made)
            return replay, sum(bool(connector.links) for connector in connectors.values())

    return virtual_time.run(work())


def assert_whole(replay, truth=None):
    truth = truth or plain_decoding(FullEngine())
    assert replay.last["event"] == "done", replay.last
    assert list(replay.last["token_ids"]) == truth
    assert replay.last["verified_count"] == len(truth)


@pytest.mark.parametrize("mode", ["collaborate", "cloud"])
@pytest.mark.parametrize("limit", [1, 2, 5, 9])
def test_the_text_goes_on_elsewhere_without_a_wait_and_without_going_alone(mode, limit):
    replay, num_verifiers = run(4, limit, limit, limit, mode=mode)
    assert_whole(replay)
    assert num_verifiers > 1


def test_the_answer_never_says_that_it_is_offline():
    async def work():
        async with several(3, 5, 5) as (running, _, _):
            return [(e.mode, e.reason) async for e in running.stream(request()) if e.name == "state"]

    assert set(virtual_time.run(work())) == {("collaborate", "link")}


def test_a_pause_is_no_longer_than_the_passes_that_it_takes():
    """A stream is opened at once, and its first pass gives the next token: no second of waiting in between."""
    replay, _ = run(3, 4, 4, mode="cloud")
    whole, _ = run(3, mode="cloud")
    rate = [r.last["figures"]["tokens_per_s"]["value"] for r in (replay, whole)]
    assert rate[0] == pytest.approx(rate[1], rel=0.05)


def test_where_all_are_lost_the_device_goes_on_alone_and_its_tail_is_audited_later():
    async def work():
        async with several(2, 4, 4, draft=DraftEngine(0.7, step_s=0.2)) as (running, _, _):
            events = [event async for event in running.stream(request())]
        return events[-1], [(event.mode, event.reason) for event in events if event.name == "state"]

    done, states = virtual_time.run(work())
    assert (list(done.token_ids), done.verified_count) == (plain_decoding(FullEngine()), 40)
    assert states == [("collaborate", "link")] * 2 + [("device", "offline"), ("collaborate", "link")]


@pytest.mark.parametrize("num_verifiers", [2, 3])
@pytest.mark.parametrize("mode", ["collaborate", "cloud"])
def test_where_nobody_answers_each_verifier_is_waited_for_once(num_verifiers, mode):
    async def work():
        nobody = [WatchedConnector(delay_s=5.0, failure=LinkError("nobody answers")) for _ in range(num_verifiers)]
        named = {f"v{number}": connector for number, connector in enumerate(nobody)}
        async with agent_of(MultiConnector(FixedList(tuple(named)), named.__getitem__), DraftEngine(step_s=0.05)) as running:
            async for event in running.stream(request(mode=mode, max_tokens=200)):
                if event.name == "error" or (event.name, getattr(event, "reason", None)) == ("state", "offline"):
                    return event.name, asyncio.get_running_loop().time()
        raise AssertionError("nobody was told")

    assert virtual_time.run(work()) == ("error" if mode == "cloud" else "state", pytest.approx(5.0 * num_verifiers))


def test_a_full_verifier_sends_its_sessions_to_another():
    async def work():
        async with several(2, max_sessions=2) as (running, made, _), asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(answer(running, mode="cloud")) for _ in range(4)]
        assert [one.statistics.sessions for one in made] == [2, 2]
        return [task.result() for task in answers]

    for replay in virtual_time.run(work()):
        assert_whole(replay)


def test_one_radio_carries_the_streams_to_all_verifiers():
    async def work():
        async with contextlib.AsyncExitStack() as stack:
            made, limits = [await stack.enter_async_context(verifier(SlowEngine(PASS_S))) for _ in range(2)], [5]
            connectors = {name: Breaking(MemoryConnector(one), limits) for name, one in zip("ab", made, strict=True)}
            inner = MultiConnector(FixedList("ab"), connectors.__getitem__)
            radio = ShapedConnector(inner, network("lte"))
            running = await stack.enter_async_context(agent_of(radio, DraftEngine(0.7, step_s=0.05)))
            replay = await answer(running)
            return replay, [len(connector.links) for connector in connectors.values()]

    replay, num_links = virtual_time.run(work())
    assert_whole(replay)
    assert num_links == [1, 1]


class Absent(WatchedConnector):
    """A verifier that cannot be reached."""

    num_asked = 0

    async def connect(self):
        self.num_asked += 1
        raise LinkError("there is no verifier")


def test_over_an_emulated_network_too_a_verifier_that_cannot_be_reached_is_passed_over_at_once():
    async def work():
        async with contextlib.AsyncExitStack() as stack:
            one = await stack.enter_async_context(verifier(SlowEngine(PASS_S)))
            absent = Absent(MemoryConnector(one))
            connectors = {"well": WatchedConnector(MemoryConnector(one))} | dict.fromkeys("abc", absent)
            radio = ShapedConnector(MultiConnector(FixedList(tuple(connectors)), connectors.__getitem__), network("lte"))
            running = await stack.enter_async_context(agent_of(radio, DraftEngine(0.7, step_s=0.05)))
            replays = []
            while not absent.num_asked:
                replays.append(await answer(running, mode="cloud"))
            return replays

    for replay in virtual_time.run(work()):
        assert_whole(replay)


class Relay:
    """A way to a verifier that can be cut as the death of its process would cut it."""

    def __init__(self, target):
        self._target = target
        self._writers = []
        self.num_bytes = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.kill()
        await self._server.wait_closed()

    def kill(self):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        there, back = await asyncio.open_connection(*self._target.rsplit(":", 1))
        self._writers += [writer, back]
        with contextlib.suppress(OSError, asyncio.CancelledError):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, back))
                await self._pump(there, writer)

    async def _pump(self, reader, writer):
        while data := await reader.read(65536):
            self.num_bytes += len(data)
            writer.write(data)
        writer.close()


@pytest.mark.parametrize("mode", ["collaborate", "cloud"])
async def test_a_real_verifier_that_is_killed_in_mid_stream_costs_no_token(mode):
    async with asyncio.timeout(LIMIT_S), contextlib.AsyncExitStack() as stack:
        relays = []
        for _ in range(2):
            full = FullModel(SlowEngine(0.01), IDENTITY, SelfTest(True, "f" * 16, 0.0, ()))
            running = await stack.enter_async_context(serve(VerifierConfig(port=0, drain_grace_s=0.0), full_model=full))
            relays.append(await stack.enter_async_context(Relay(running.target)))
        verifiers = MultiConnector(FixedList([relay.target for relay in relays]), GrpcConnector)
        agent = await stack.enter_async_context(agent_of(verifiers, DraftEngine(0.7)))
        states, num_final = [], 0
        async for event in agent.stream(request(mode=mode)):
            if event.name == "state":
                states.append(event.reason)
            offset = getattr(event, "commit_offset", None)
            num_final = offset.tokens if offset is not None else num_final
            if num_final >= 8 and len(states) == 1:
                max(relays, key=lambda relay: relay.num_bytes).kill()
                states.append("killed")
        assert list(event.token_ids) == plain_decoding(FullEngine())
        assert event.verified_count == len(event.token_ids)
        assert states == ["link", "killed", "link"]


async def outcome(*errors):
    """What is raised where conversations end so; each says whether another verifier is there."""
    left = list(errors)

    async def converse():
        if left:
            raise left.pop(0)

    await with_one_after_another(converse)


def told(error, elsewhere=True):
    error.can_go_elsewhere = elsewhere
    return error


async def test_a_refusal_before_any_loss_is_raised_at_once():
    for refusal in (HandshakeError("another pair"), AuthenticationError("no key")):
        with pytest.raises(type(refusal)):
            await outcome(told(refusal), LinkError("never reached"))


async def test_a_refusal_behind_a_loss_is_passed_over_and_the_loss_is_what_is_told():
    await outcome(told(LinkError("gone")), told(HandshakeError("another fingerprint")))
    with pytest.raises(LinkError, match="gone"):
        await outcome(told(LinkError("gone")), told(HandshakeError("another fingerprint"), elsewhere=False))


async def test_of_several_losses_the_full_verifier_is_told():
    with pytest.raises(CapacityError):
        await outcome(told(CapacityError("full", 2.0)), told(LinkError("gone"), elsewhere=False))
    with pytest.raises(CapacityError):
        await outcome(told(LinkError("gone")), told(CapacityError("full", 2.0), elsewhere=False))
