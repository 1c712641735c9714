"""An agent whose pair is the one before, or older still, and a verifier whose arithmetic changes under it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from dataclasses import replace

import pytest

from cloud_verifier import verification
from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel
from cloud_verifier.pairs import Pairs, Served
from cloud_verifier.server import serve
from cloud_verifier.verification import Verifier
from device_agent import elsewhere
from device_agent.agent import DeviceAgent
from device_agent.elsewhere import with_one_after_another
from device_agent.offer import PairOffer
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.errors import FingerprintError, LinkError, PairError
from speculation.links.grpc import GrpcConnector
from speculation.links.memory import MemoryConnector
from speculation.links.multi import MultiConnector
from speculation.links.resolvers import FixedList
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import PairIdentity
from speculation.shaping import virtual_time
from tests.cloud_verifier.doubles import plain_decoding as continuation
from tests.device_agent.doubles import (
    CONTEXT,
    FULL_SEED,
    PROMPT,
    VOCABULARY,
    DraftEngine,
    FullEngine,
    SlowEngine,
    agent_of,
    answer,
    config,
    encode,
    facts,
    feed,
    plain_decoding,
    request,
    wait_until,
)
from tests.device_agent.replay import Replay
from tests.device_agent.test_reconnect import SLOW_STEP_S, Turns
from tests.support.figures import Figures

LIMIT_S = 30
OLDEST, OLD, NEW = 1, 2, 3
PASSES_BEFORE_IT_STOPS = 6
ACCURACY = 0.7


def identity(version):
    return PairIdentity("a" * 64, f"{version:x}" * 64, f"{version + 8:x}" * 64, version)


def engine_of(version):
    """The full model of a pair: the agents here draft for that of ``OLD``."""
    return FullEngine() if version == OLD else RandomEngine(VOCABULARY, CONTEXT, FULL_SEED + version)


def model(version, engine=None, **changes):
    return FullModel(engine or engine_of(version), identity(version), SelfTest(True, f"{version}" * 16, 0.0, ()), **changes)


def agent_with(version, connector, draft=None):
    return agent_of(connector, draft or DraftEngine(ACCURACY), facts(identity=identity(version)))


class Stopping(FullEngine):
    """Stands still in the middle of an answer until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.is_standing = threading.Event(), threading.Event()
        self._num_passes = 0

    def extend(self, chunks):
        self._num_passes += 1
        if self._num_passes > PASSES_BEFORE_IT_STOPS:
            self.is_standing.set()
            assert self.gate.wait(LIMIT_S)
        return super().extend(chunks)


class HeldDraft(DraftEngine):
    """Drafts no further while its gate is shut."""

    def __init__(self) -> None:
        super().__init__(ACCURACY)
        self.gate = threading.Event()
        self.gate.set()

    def extend(self, chunks):
        assert self.gate.wait(LIMIT_S)
        return super().extend(chunks)


@contextlib.asynccontextmanager
async def serving(full):
    async with serve(VerifierConfig(port=0, run_drafts="all", drain_grace_s=0.0), full_model=full) as running:
        yield running


@contextlib.asynccontextmanager
async def beside(version):
    """An agent with this pair, and over gRPC a verifier that serves the newest and the one before."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(LIMIT_S))
        running = await stack.enter_async_context(serving(model(NEW, previous=model(OLD))))
        yield await stack.enter_async_context(agent_with(version, GrpcConnector(running.target)))


async def test_an_agent_with_the_pair_before_gets_its_own_text_and_hears_of_the_newer_one_once(caplog):
    async with beside(OLD) as agent:
        assert agent.health()["pair"] == {"have": OLD, "offered": None}
        for _ in range(2):
            replay = await answer(agent)
            assert list(replay.last["token_ids"]) == plain_decoding(engine_of(OLD))
            assert replay.last["verified_count"] == 40
        assert agent.health()["pair"] == {"have": OLD, "offered": NEW}
        told = Figures.of(agent.metrics.registry)
        assert (told["outrider_agent_pair"], told["outrider_agent_offered_pair"]) == (OLD, NEW)
    assert [record.getMessage() for record in caplog.records if record.name == "device_agent.offer"] == [
        "a verifier serves pair 3, and this agent has pair 2: bring it the newer one"
    ]


@pytest.mark.parametrize(("have", "told", "lines"), [(2, [2, 1, 0], 0), (2, [3, 3, 4, 3], 2), (0, [5], 0)])
def test_only_a_newer_pair_is_news_and_an_agent_without_a_counter_hears_none(have, told, lines, caplog):
    offer = PairOffer(have)
    for newest in told:
        offer.told(newest)
    assert len(caplog.records) == lines
    assert offer.to_json() == {"have": have or None, "offered": [newest for newest in told if newest][-1]}


@pytest.mark.parametrize("mode", ["collaborate", "cloud"])
async def test_an_agent_whose_pair_is_older_still_says_so_and_is_refused_with_all_counters(mode):
    async with beside(OLDEST) as agent:
        events = [event async for event in agent.stream(request(mode=mode))]
        assert agent.health()["pair"] == {"have": OLDEST, "offered": NEW}
    assert [(event.mode, event.reason) for event in events if event.name == "state"] == [(mode, "pair")]
    error = events[-1].error
    assert error["code"] == "pair"
    assert all(f"pair {version} (" in error["message"] for version in (OLDEST, OLD, NEW))
    assert "update the device's pair" in error["message"]


class Address:
    """Where the verifier is: another process answers there once it was started again."""

    def __init__(self) -> None:
        self._connectors = []
        self._is_known = asyncio.Event()

    def leads_to(self, target):
        self._connectors.append(GrpcConnector(target))
        self._is_known.set()

    async def connect(self):
        await self._is_known.wait()
        return await self._connectors[-1].connect()

    async def aclose(self):
        for connector in self._connectors:
            await connector.aclose()


class Reading:
    """Reads an answer. Alone, the device drafts nothing until it knows why; then the verifier that died may end its pass."""

    def __init__(self, draft, before) -> None:
        self.replay, self.states = Replay(), []
        self._draft, self._before = draft, before

    async def run(self, stream):
        while batch := await stream.take():
            for event in batch:
                feed(self.replay, event.to_json())
                if event.name == "state":
                    self._heard(event)
        self._before.gate.set()

    def _heard(self, event):
        self.states.append((event.mode, event.reason))
        if event.reason == "offline":
            self._draft.gate.clear()
            self._before.gate.set()
        elif event.reason == "pair":
            self._draft.gate.set()


@pytest.mark.parametrize(("mode", "reveal"), [("collaborate", "all"), ("collaborate", "final"), ("cloud", "all")])
async def test_a_verifier_that_comes_back_without_the_pair_of_an_answer_adds_nothing_to_it(mode, reveal, monkeypatch):
    """The device writes on alone and says why, or ends with an error, as its mode says: no token is the newer model's."""
    monkeypatch.setattr(elsewhere, "RECONNECT_S", 0.01)
    before, draft = Stopping(), HeldDraft()
    reading, stop, connector = Reading(draft, before), asyncio.Event(), Address()

    async def serve_both():
        async with serving(model(NEW, previous=model(OLD, before))) as running:
            connector.leads_to(running.target)
            await stop.wait()

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks, serving(model(NEW)) as alone:
        both = tasks.create_task(serve_both())
        runner = EngineRunner.on_own_thread(draft, "draft")
        async with DeviceAgent(facts(identity=identity(OLD)), runner, connector, config()) as agent:
            answering = tasks.create_task(reading.run(await agent.start(request(mode=mode, reveal=reveal))))
            await wait_until(before.is_standing.is_set)
            connector.leads_to(alone.target)
            stop.set()
            await both
            await answering
        assert alone.pairs.statistics.sessions == 0
    last = reading.replay.last
    if (mode, reveal) != ("collaborate", "all"):
        assert last["error"]["code"] == "link"
        return
    assert reading.states == [("collaborate", "link"), ("device", "offline"), ("device", "pair")]
    count, tokens = last["verified_count"], list(last["token_ids"])
    assert last["finish_reason"] == "length"
    assert 0 < count < 40
    assert tokens[:count] == plain_decoding(engine_of(OLD))[:count]
    prompt = encode(PROMPT)
    truly_drafted = continuation(DraftEngine(ACCURACY), [*prompt, *tokens[:count]], SamplingParameters(seed=3), 40 - count)
    assert [*prompt, *tokens] == truly_drafted


def pairs_of(*versions, fingerprint="f" * 16, identities=()):
    """Verifiers of these pairs, the newest first, whose passes take time; they run in the task group that ``running`` makes."""
    served = []
    for version, told in zip(versions, identities or map(identity, versions), strict=True):
        engine = SlowEngine(0.3) if version == OLD else engine_of(version)
        proof = SelfTest(True, fingerprint, 0.0, ())
        made = Verifier(EngineRunner(engine), told, proof, VerifierConfig(port=0, run_drafts="all"))
        served.append(Served(told, fingerprint, made))
    return Pairs(served, 16)


def virtually(work, *several):
    """What ``work`` gives while all these verifiers run, on a virtual clock."""

    async def run():
        async with asyncio.TaskGroup() as tasks:
            passes = [tasks.create_task(verifier.run()) for pairs in several for verifier in pairs.verifiers]
            try:
                return await work()
            finally:
                for task in passes:
                    task.cancel()

    return virtual_time.run(run())


def states_and_last(turns, *several):
    """How an answer went that has one verifier after the other; each serves so many messages."""
    replay, states = Replay(), []

    async def work():
        async with agent_with(OLD, Turns(*turns), slow_draft()) as agent:
            async for event in agent.stream(request()):
                feed(replay, event.to_json())
                if event.name == "state":
                    states.append((event.mode, event.reason))

    virtually(work, *several)
    return states, replay.last


def slow_draft():
    return DraftEngine(ACCURACY, step_s=SLOW_STEP_S)


OTHER_ARITHMETIC = {"fingerprint": "e" * 16}
SAME_COUNTER = {"identities": [replace(identity(OLD), pair_digest="9" * 64)]}
LOST = [("collaborate", "link"), ("device", "offline")]


@pytest.mark.parametrize(("changes", "reason"), [(OTHER_ARITHMETIC, "exactness"), (SAME_COUNTER, "pair")])
def test_a_verifier_that_cannot_go_on_with_an_answer_is_told_once_however_often_it_is_asked(changes, reason):
    first, other = pairs_of(OLD), pairs_of(OLD, **changes)
    states, last = states_and_last([(first, 5), (other, None)], first, other)
    assert states == [*LOST, ("device", reason)]
    count = last["verified_count"]
    assert 0 < count < 40
    assert list(last["token_ids"][:count]) == plain_decoding(FullEngine())[:count]
    assert not other.statistics.sessions


@pytest.mark.parametrize(("changes", "reason"), [(OTHER_ARITHMETIC, "exactness"), (SAME_COUNTER, "pair")])
def test_where_the_right_one_is_back_the_answer_is_verified_to_its_end_and_a_new_refusal_is_news(changes, reason):
    first, other = pairs_of(OLD), pairs_of(OLD, **changes)
    turns = [(first, 5), (other, None), (first, 3), (other, None), (first, None)]
    states, last = states_and_last(turns, first, other)
    assert states == [*LOST, ("device", reason), *LOST, ("device", reason), ("collaborate", "link")]
    assert list(last["token_ids"]) == plain_decoding(FullEngine())
    assert last["verified_count"] == 40


def test_other_arithmetic_that_goes_on_with_an_answer_all_the_same_is_told(monkeypatch):
    """A verifier of somebody else's may accept, and say its own fingerprint: then the text may differ from there on."""
    monkeypatch.setattr(verification, "check_handshake", lambda *_: None)
    first, other = pairs_of(OLD), pairs_of(OLD, **OTHER_ARITHMETIC)
    states, last = states_and_last([(first, 5), (other, None)], first, other)
    assert states == [*LOST, ("collaborate", "link"), ("collaborate", "exactness")]
    assert last["verified_count"] == 40


def test_in_a_fleet_that_moves_over_an_answer_goes_to_a_verifier_that_serves_its_pair(monkeypatch):
    """Who does not serve it is passed over without a word; where nobody does, all that are served are named."""
    ids = iter("abcdefgh")
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(ids))
    moved, moving = pairs_of(NEW), pairs_of(NEW, OLD)
    tried = []

    def connect_to(name):
        tried.append(name)
        return MemoryConnector(moved if name.startswith("moved") else moving)

    async def work(*names):
        async with agent_with(OLD, MultiConnector(FixedList(names), connect_to), slow_draft()) as agent:
            events = [event async for event in agent.stream(request())]
            return [event.reason for event in events if event.name == "state"], events[-1]

    async def everywhere():
        told = [await work("moved", "moving") for _ in range(2)]
        return told, await work("moved-1", "moved-2")

    told, (states, refused) = virtually(everywhere, moved, moving)
    assert {"moved", "moving"} < set(tried)
    for reasons, last in told:
        assert reasons == ["link"]
        assert list(last.token_ids) == plain_decoding(FullEngine())
        assert last.verified_count == 40
    assert states == ["pair"]
    assert refused.error["code"] == "pair"


async def test_a_refusal_that_says_nothing_of_others_leads_on_to_them():
    for misfit in (PairError("not served", 1, (2,)), FingerprintError("other arithmetic")):
        left = [misfit, LinkError("gone")]
        misfit.can_go_elsewhere = True

        async def converse(left=left):
            if left:
                raise left.pop(0)

        with pytest.raises(LinkError, match="gone"):
            await with_one_after_another(converse)
