"""Two pairs at one verifier: real gRPC, a table for each full model."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from cloud_verifier.engine import FullModel
from cloud_verifier.metrics import VerifierMetrics
from cloud_verifier.pairs import Pairs, Served
from cloud_verifier.room import Room
from cloud_verifier.server import serve
from cloud_verifier.verification import Verifier
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.errors import CapacityError, FingerprintError, HandshakeError, PairError, SessionNotFoundError
from speculation.links.grpc import GrpcConnector
from speculation.links.status import MAX_CHARACTERS
from speculation.parameters import SamplingParameters
from speculation.protocol.cover import Cover
from speculation.protocol.fillers import is_filler
from speculation.protocol.messages import FinishReason, Opened, PairIdentity
from speculation.tenants import Limits, Tenant
from tests.cloud_verifier.doubles import (
    CONTEXT,
    SAMPLED,
    VOCABULARY,
    WatchedEngine,
    collect,
    finished_of,
    open_message,
    plain_decoding,
    settings,
    wait_until,
)
from tests.cloud_verifier.sessions import LIMIT_S, device, held, opened, refusal
from tests.support.figures import Figures

OLD, NEW, NEXT = 1, 2, 3
FIGURE = "outrider_verifier_pair_"


def identity(version, full=None):
    """Of a pair with this counter; its full model is another one, unless said otherwise."""
    return PairIdentity("a" * 64, f"{version:x}" * 64, f"{full or version + 8:x}" * 64, version)


def fingerprint(version):
    return f"{version + 4:x}" * 16


def model(version, **changes):
    proof = SelfTest(True, fingerprint(version), 0.0, ())
    return FullModel(WatchedEngine(seed=version), identity(version), proof, **changes)


def truth_of(version, prompt=(1, 2, 3), parameters=None, max_tokens=8):
    """The text of one pair's full model alone."""
    table = RandomEngine(VOCABULARY, CONTEXT, version)
    return plain_decoding(table, prompt, parameters or SamplingParameters(), max_tokens)


@asynccontextmanager
async def serving(full=None, **changes):
    """Both pairs at one port: their engines, the verifier, and a connector to it."""
    full = full or model(NEW, previous=model(OLD))
    engines = full.engine, full.previous and full.previous.engine
    async with asyncio.timeout(LIMIT_S), serve(settings(**changes), full_model=full) as running:
        connector = GrpcConnector(running.target)
        try:
            yield engines, running, connector
        finally:
            for engine in filter(None, engines):
                engine.gate.set()
            await connector.aclose()


def drafting(version, number, accuracy, session_identity=None):
    """A device of one pair that drafts for a text of 40 tokens, and that text."""
    prompt, parameters = [1 + number, 2, 3], SamplingParameters() if number % 2 else SAMPLED
    truth = truth_of(version, prompt, parameters, 40)
    name = f"{version}-{number}"
    return device(name, truth, prompt, parameters, accuracy, identity=session_identity or identity(version)), truth


async def texts_at(connector, *devices):
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(one.run(connector)) for one in devices]
    return [task.result() for task in running]


def tokens_of(messages, prompt=(1, 2, 3)):
    """The text of a session without drafts: a choice a verdict."""
    return [*prompt, *(message.choice for message in messages[:-1] if not isinstance(message, Opened))]


async def test_devices_of_both_pairs_get_the_text_of_their_own_full_model_at_the_same_time():
    assert truth_of(OLD) != truth_of(NEW)
    async with serving() as (engines, _, connector):
        devices, truths = zip(*(drafting(version, n, 0.7) for n in range(2) for version in (OLD, NEW)), strict=True)
        assert await texts_at(connector, *devices) == list(truths)
        assert all(engine.passes for engine in engines)
        await wait_until(lambda: not any(engine.open_caches for engine in engines))


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_whatever_pair_a_device_has_it_is_told_the_newest(version):
    async with serving() as (_, _, connector):
        link = await connector.connect()
        await link.send(open_message(identity=identity(version)))
        told = await link.receive()
        assert (told.newest_pair, told.fingerprint) == (NEW, fingerprint(version))
        await collect(link)


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_whatever_pair_a_device_has_its_stream_is_covered_as_it_asks_and_as_the_verifier_is_set(version):
    async with serving(pad_bytes=256) as (_, _, connector):
        link = await connector.connect()
        await link.send(open_message(identity=identity(version), cover=Cover(64, 10)))
        told = await link.receive()
        assert (told.cover, told.newest_pair) == (Cover(256, 10), NEW)
        decided = [m for m in await collect(link) if getattr(m, "choice", None) is not None and not is_filler(m)]
        assert [1, 2, 3, *(m.choice for m in decided)] == truth_of(version)


async def test_a_device_that_does_not_tell_its_counter_is_known_by_its_digests():
    async with serving() as (_, _, connector):
        silent, truth = drafting(OLD, 1, 0.5, replace(identity(OLD), version=0))
        assert await texts_at(connector, silent) == [truth]


@pytest.mark.parametrize(
    ("asked", "advice"), [(0, " are"), (NEXT, "this verifier is behind"), (OLD, "update the device's pair")]
)
async def test_a_pair_that_is_neither_is_refused_with_all_that_are_served(asked, advice):
    full = model(NEXT, previous=model(NEW)) if asked == OLD else model(NEW, previous=model(OLD))
    mine = replace(identity(7), version=asked)
    async with serving(full) as (_, _, connector):
        with pytest.raises(PairError, match="the device's pair") as refused:
            await refusal(connector, identity=mine)
    told, served = str(refused.value), [full, full.previous]
    assert (refused.value.asked, refused.value.served) == (asked, tuple(one.identity.version for one in served))
    for named in (
        mine.pair_digest,
        *(part for one in served for part in (one.identity.pair_digest, one.self_test.fingerprint)),
    ):
        assert named in told
    assert told.endswith(advice)
    assert len(told) < MAX_CHARACTERS - 20, "longer counters must fit, too"


async def test_another_pair_with_the_same_counter_is_refused():
    async with serving() as (_, _, connector):
        with pytest.raises(PairError, match=f"pair 2 .*{'7' * 64}.* pair 2 .*{'2' * 64}"):
            await refusal(connector, identity=replace(identity(7), version=NEW))


async def test_a_counter_that_is_not_that_of_the_digest_is_refused():
    async with serving() as (_, _, connector):
        with pytest.raises(PairError):
            await refusal(connector, identity=replace(identity(OLD), version=NEW))


async def test_another_tokenizer_or_full_model_is_refused_by_name_whichever_pair_it_is():
    async with serving() as (_, _, connector):
        for name in ("tokenizer", "full"):
            with pytest.raises(HandshakeError, match=f"the device's {name} digest"):
                await refusal(connector, identity=replace(identity(OLD), **{f"{name}_digest": "0" * 64}))


async def test_a_session_goes_on_with_the_pair_that_it_began_with():
    """Its final tokens are the earlier full model's, and so are those behind them."""
    truth = truth_of(OLD)
    async with serving() as (_, _, connector):
        given = {"attempt": 2, "prefix": tuple(truth[:6]), "fingerprint": fingerprint(OLD)}
        link = await opened(connector, identity=identity(OLD), **given)
        assert tokens_of(await collect(link), truth[:6]) == truth
        with pytest.raises(FingerprintError, match=f"{fingerprint(OLD)}.*{fingerprint(NEW)}"):
            await refusal(connector, identity=identity(NEW), **given)


async def test_a_session_that_runs_moves_to_no_other_pair():
    async with serving() as ((_, before), _, connector):
        link = await held(before, connector, identity=identity(OLD))
        with pytest.raises(PairError, match="runs with pair 1, and stays with it"):
            await refusal(connector, identity=identity(NEW), attempt=2)
        before.gate.set()
        assert tokens_of(await collect(link)) == truth_of(OLD)


async def test_both_pairs_share_the_seats_and_who_waits_is_woken_whichever_ends():
    async with serving(max_sessions=1, max_queued=1) as ((_, before), running, connector):
        first = await held(before, connector, identity=identity(OLD), session_id="first")
        second = await opened(connector, identity=identity(NEW), session_id="second")
        assert [len(one.seats.running) for one in running.pairs.verifiers] == [0, 1]
        for version in (OLD, NEW):
            with pytest.raises(CapacityError, match="all 1 sessions of this verifier are taken, and 1 wait"):
                await refusal(connector, identity=identity(version), session_id="third")
        before.gate.set()
        assert tokens_of(await collect(first)) == truth_of(OLD)
        assert tokens_of(await collect(second)) == truth_of(NEW)


def made(max_sessions=16, **changes):
    """Both pairs' verifiers, of which none runs."""
    served = []
    for one in (model(NEW), model(OLD)):
        verifier = Verifier(EngineRunner(one.engine), one.identity, one.self_test, settings(**changes))
        served.append(Served(one.identity, one.self_test.fingerprint, verifier))
    return Pairs(served, max_sessions)


async def test_who_came_first_is_seated_first_whichever_pair_it_waits_for():
    pairs = made(max_sessions=1, max_queued=3)
    first, *waiting = [
        pairs.attach(open_message(name, identity=identity(version)))
        for name, version in (("a", NEW), ("b", OLD), ("c", NEW), ("d", OLD))
    ]
    order = []
    while waiting:
        first.close()
        (first,) = [live for one in pairs.verifiers for live in one.seats.running]
        waiting.remove(first)
        order.append(first.session_id)
    assert order == ["b", "c", "d"]


def limited(pairs):
    """Room for one whole context of each pair, a byte a token."""
    for verifier in pairs.verifiers:
        verifier.seats.limit(Room(CONTEXT, CONTEXT, lambda num_tokens: num_tokens))
    return pairs


def in_turn(pairs, *wanted):
    """Sessions by name, pair and the tokens that they may become, in the order in which they come."""
    return {
        name: pairs.attach(open_message(name, identity=identity(version), max_tokens=tokens - 3))
        for name, version, tokens in wanted
    }


def running_in(pairs):
    return {live.session_id for one in pairs.verifiers for live in one.seats.running}


async def test_who_waits_for_room_at_one_pair_is_passed_by_nobody_there_and_keeps_nobody_from_the_other():
    pairs = limited(made(max_queued=8))
    quarter = CONTEXT // 4
    came = [("runs", OLD, quarter), ("large", OLD, CONTEXT), ("small", OLD, quarter), ("other", NEW, CONTEXT)]
    lives = in_turn(pairs, *came)
    assert running_in(pairs) == {"runs", "other"}
    lives["other"].close()
    assert running_in(pairs) == {"runs"}, "room of the other pair is not this one's"
    lives["runs"].close()
    assert running_in(pairs) == {"large"}
    lives["large"].close()
    assert running_in(pairs) == {"small"}


async def test_with_room_at_both_pairs_they_share_no_more_seats_than_there_are():
    pairs = limited(made(max_sessions=2, max_queued=8))
    quarter = CONTEXT // 4
    lives = in_turn(pairs, ("a", NEW, quarter), ("b", OLD, CONTEXT), ("c", OLD, quarter), ("d", NEW, quarter))
    assert running_in(pairs) == {"a", "b"}
    lives["a"].close()
    assert running_in(pairs) == {"b", "d"}, "c came first, but there is no room for it"
    lives["b"].close()
    assert running_in(pairs) == {"c", "d"}


async def test_a_tenants_limits_hold_over_both_pairs_and_its_sessions_are_its_own():
    pairs, alice = made(), Tenant("alice", Limits(max_sessions=1))
    pairs.attach(open_message("s", identity=identity(OLD)), alice)
    with pytest.raises(CapacityError, match="of this tenant"):
        pairs.attach(open_message("t", identity=identity(NEW)), alice)
    for version in (OLD, NEW):
        with pytest.raises(SessionNotFoundError):
            pairs.attach(open_message("s", identity=identity(version), attempt=2), Tenant("bob"))
    pairs.attach(open_message("t", identity=identity(NEW)), Tenant("bob"))


async def test_a_stop_drains_both_pairs():
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        full = model(NEW, previous=model(OLD))
        engines = full.engine, full.previous.engine
        async with serve(settings(drain_grace_s=LIMIT_S), full_model=full) as running:
            connector = GrpcConnector(running.target)
            links = [
                await held(e, connector, identity=identity(v), session_id=str(v))
                for e, v in zip(engines, (NEW, OLD), strict=True)
            ]
            ends = [tasks.create_task(collect(link)) for link in links]
            for engine in engines:
                engine.gate.set()
        for end, version in zip(ends, (NEW, OLD), strict=True):
            messages = await end
            assert finished_of(messages).reason is FinishReason.LENGTH
            assert tokens_of(messages) == truth_of(version)
        await connector.aclose()


async def test_a_stop_ends_what_its_grace_does_not_suffice_for_with_either_pair():
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        full = model(NEW, previous=model(OLD))

        async def read_to_the_end(link, engine):
            messages = await collect(link)
            engine.gate.set()
            return finished_of(messages).reason

        async with serve(settings(), full_model=full) as running:
            connector = GrpcConnector(running.target)
            reading = []
            for one in (full, full.previous):
                link = await held(one.engine, connector, identity=one.identity, session_id=one.identity.pair_digest)
                reading.append(tasks.create_task(read_to_the_end(link, one.engine)))
        assert [await reason for reason in reading] == [FinishReason.SHUTDOWN] * 2
        await connector.aclose()


async def test_a_pair_with_the_same_full_model_needs_no_engine_of_its_own():
    full = model(NEW)
    also = identity(OLD, full=NEW + 8)
    async with serving(replace(full, also=also)) as (_, running, connector):
        assert len(running.pairs.verifiers) == 1
        figures = VerifierMetrics(running.pairs, "model")
        (new, truth), (old, _) = drafting(NEW, 1, 0.7), drafting(NEW, 1, 0.7, also)
        old.session.session_id = "old"
        assert await texts_at(connector, new, old) == [truth, truth]
        told = Figures.of(figures.registry)
        assert [told.get(FIGURE + "sessions_opened_total", pair=str(v)) for v in (OLD, NEW)] == [1, 1]
        with pytest.raises(PairError):
            await refusal(connector, identity=identity(NEXT))


async def test_figures_tell_the_memory_of_both_pairs_caches_together():
    pairs = limited(made())
    figures = VerifierMetrics(pairs, "model")
    in_turn(pairs, ("a", NEW, CONTEXT // 4), ("b", OLD, CONTEXT // 4), ("c", OLD, CONTEXT // 2))
    told = Figures.of(figures.registry)
    by_class = [told.get("outrider_verifier_cache_bytes", context=share) for share in ("1/4", "1/2", "1/1")]
    assert by_class == [CONTEXT // 2, CONTEXT // 2, 0]


async def test_figures_tell_the_sessions_of_each_pair_and_who_asked_in_vain():
    async with serving() as ((_, before), running, connector):
        figures = VerifierMetrics(running.pairs, "model")
        link = await held(before, connector, identity=identity(OLD))
        for asked in (NEXT, 0):
            with pytest.raises(PairError):
                await refusal(connector, identity=replace(identity(NEXT), version=asked))
        told = Figures.of(figures.registry)
        assert [told.get(FIGURE + "sessions", pair=str(v)) for v in (OLD, NEW)] == [1, 0]
        assert told.get("outrider_verifier_slots") == 16
        before.gate.set()
        await collect(link)
        await wait_until(lambda: not running.pairs.num_sessions)
        told = Figures.of(figures.registry)
        assert [told.get(FIGURE + "sessions", pair=str(v)) for v in (OLD, NEW)] == [0, 0]
        assert [told.get(FIGURE + "sessions_opened_total", pair=str(v)) for v in (OLD, NEW)] == [1, 0]
        assert told["outrider_verifier_final_tokens_total"] == 8
        assert [told.get(FIGURE + "refusals_total", asked=word) for word in ("older", "newer", "other")] == [0, 1, 1]
