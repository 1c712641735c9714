"""The verifier's end of a covered stream, under the virtual clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cloud_verifier.config import VerifierConfig
from cloud_verifier.covering import CoveringVerifier, granted
from cloud_verifier.live import ON_A_TICK
from speculation.engines.random import RandomEngine
from speculation.errors import ConfigurationError, InvalidRequestError, status_of
from speculation.links.memory import MemoryConnector
from speculation.protocol.cover import MOST_PAD_BYTES, UNCOVERED, Cover
from speculation.protocol.fillers import FILLER_UP, is_filler
from speculation.protocol.messages import Finished, FinishReason, Opened, Verdict
from tests.cloud_verifier.doubles import CONTEXT, SEED, VOCABULARY, open_message
from tests.cloud_verifier.virtual import PASS_S, TimedEngine, now_s, running, virtually

TICK_S = 0.25


async def conversation(cover, own=UNCOVERED, pass_s=PASS_S, **changes):
    """All messages of a session without drafts, each with its time and the bytes that it took."""
    config = VerifierConfig(pad_bytes=own.pad_bytes, tick_ms=own.tick_ms)
    async with running(TimedEngine(step_s=pass_s), patience=0) as (_, verifier, _):
        link = await MemoryConnector(CoveringVerifier(verifier, config)).connect()
        await link.send(replace(open_message(**changes), cover=cover))
        heard, before = [], 0
        while (message := await link.receive()) is not None:
            heard.append((now_s(), message, link.statistics.received_bytes - before))
            before = link.statistics.received_bytes
        assert now_s() == heard[-1][0], "the end of the stream waited for a tick"
        return heard


@virtually
async def test_the_first_message_comes_at_once_and_one_on_each_tick_behind_it():
    heard = await conversation(Cover(256, 250), max_tokens=3, pass_s=0.375)
    assert [at_s for at_s, _, _ in heard] == [TICK_S * n for n in range(len(heard))]
    assert {num_bytes for _, _, num_bytes in heard} == {256}
    kinds = [("filler" if is_filler(message) else type(message).__name__) for _, message, _ in heard]
    assert kinds == ["Opened", "filler", "Verdict", "Verdict", "filler", "Verdict", "Finished"]


@virtually
async def test_the_text_is_that_of_a_stream_without_cover():
    def said(heard):
        return [message for _, message, _ in heard if isinstance(message, Verdict) and not is_filler(message)]

    plain = said(await conversation(UNCOVERED, max_tokens=12))
    assert said(await conversation(Cover(256, 20), max_tokens=12)) == plain
    assert said(await conversation(UNCOVERED, own=Cover(64, 10), max_tokens=12)) == plain


@virtually
async def test_without_a_cover_nothing_is_said_of_one_and_no_byte_is_added():
    heard = await conversation(UNCOVERED, max_tokens=2)
    assert heard[0][1].cover == UNCOVERED
    assert sum(num_bytes for _, _, num_bytes in heard) < 200


@virtually
async def test_what_is_granted_is_the_larger_of_what_is_asked_and_what_is_set():
    heard = await conversation(Cover(64, 500), own=Cover(256, 20), max_tokens=2)
    assert isinstance(heard[0][1], Opened)
    assert heard[0][1].cover == Cover(256, 500)


@virtually
async def test_no_more_is_decoded_ahead_than_leaves_on_a_tick():
    """Eight passes fit into each tick: what they would say must not pile up, or a text would lag ever further behind."""
    async with running(TimedEngine(step_s=PASS_S), patience=0) as (engine, verifier, _):
        link = await MemoryConnector(CoveringVerifier(verifier, VerifierConfig())).connect()
        await link.send(replace(open_message(max_tokens=64), cover=Cover(256, 250)))
        for _ in range(9):
            await link.receive()
        assert now_s() == 2.0
        assert len(engine.began_s) <= 8 + 2
        await link.aclose()


@virtually
async def test_a_filler_of_the_device_wakes_nobody():
    async with running(patience=0) as (_, verifier, _):
        session = CoveringVerifier(verifier, VerifierConfig()).attach(open_message(max_tokens=1))
        session.live.receive = None
        session.receive(FILLER_UP)
        assert isinstance(await session.next(), Opened)
        session.close()


@virtually
async def test_a_stream_ends_with_its_session():
    async with running(patience=0) as (_, verifier, _):
        session = CoveringVerifier(verifier, VerifierConfig()).attach(replace(open_message(), cover=Cover(0, 250)))
        await session.next()
        session.live.shut_down()
        last = await session.next()
        while not isinstance(last, Finished):
            last = await session.next()
        assert last.reason is FinishReason.SHUTDOWN
        assert await session.next() is None
        assert verifier.num_sessions == 0


@pytest.mark.parametrize("cover", [Cover(2**32 - 1), Cover(0, 1), Cover(MOST_PAD_BYTES, 10), Cover(1)], ids=str)
@virtually
async def test_who_asks_for_absurd_padding_is_refused_and_gets_no_session(cover):
    async with running() as (_, verifier, _):
        link = await MemoryConnector(CoveringVerifier(verifier, VerifierConfig())).connect()
        await link.send(replace(open_message(), cover=cover))
        with pytest.raises(InvalidRequestError, match="cover") as refused:
            await link.receive()
        assert status_of(refused.value).grpc == "INVALID_ARGUMENT"
        assert verifier.num_sessions == 0
        assert link.statistics.received_bytes == 0


@virtually
async def test_nobody_gets_more_by_asking_for_half_of_what_is_too_much():
    """Its own padding and the tick that a device asks for may be too much together."""
    async with running() as (_, verifier, _):
        covering = CoveringVerifier(verifier, VerifierConfig(pad_bytes=4096))
        with pytest.raises(InvalidRequestError, match="tick_ms must be at least"):
            covering.attach(replace(open_message(), cover=Cover(32, 10)))


@virtually
async def test_padding_beyond_the_largest_message_is_refused():
    async with running() as (_, verifier, _):
        covering = CoveringVerifier(verifier, VerifierConfig(max_message_bytes=1024))
        with pytest.raises(InvalidRequestError, match="at most 1024"):
            covering.attach(replace(open_message(), cover=Cover(2048)))
    with pytest.raises(ConfigurationError, match="max_message_bytes"):
        VerifierConfig(max_message_bytes=1024, pad_bytes=2048)


def test_padding_as_long_as_the_largest_message_is_granted():
    message = replace(open_message(), cover=Cover(1024))
    assert granted(message, VerifierConfig(max_message_bytes=1024)).cover == Cover(1024)


def test_what_no_stream_gets_is_refused_even_where_the_least_of_the_verifier_would_mend_it():
    with pytest.raises(InvalidRequestError, match="10 to 1000"):
        granted(replace(open_message(), cover=Cover(0, 5)), VerifierConfig(tick_ms=20))


@virtually
async def test_a_covered_stream_may_take_a_tick_for_each_message_that_waits_and_one_for_the_last():
    async with running() as (_, verifier, _):
        covered = CoveringVerifier(verifier, VerifierConfig()).attach(replace(open_message(), cover=Cover(0, 250)))
        assert covered.leaving_s == pytest.approx(0.25 * (ON_A_TICK + 1))


@pytest.mark.parametrize("draft_length", [1, 6])
@virtually
async def test_what_waits_for_its_ticks_leaves_in_the_time_that_is_told_where_each_token_is_told_apart_too(draft_length):
    draft = RandomEngine(VOCABULARY, CONTEXT, SEED, 8)
    async with running(draft=draft, draft_length=draft_length, patience=0) as (_, verifier, _):
        session = CoveringVerifier(verifier, VerifierConfig()).attach(replace(open_message(max_tokens=64), cover=Cover(0, 250)))
        for _ in range(4):
            await session.next()
        await asyncio.sleep(0.2)
        session.live.shut_down()
        began_s, leaving_s = now_s(), session.leaving_s
        while await session.next() is not None:
            pass
        assert now_s() - began_s <= leaving_s


@pytest.mark.parametrize(("values", "words"), [({"tick_ms": -1}, "tick_ms"), ({"pad_bytes": 10_000}, "32 to 4096")])
def test_settings_of_a_cover_that_cannot_be_had_are_refused(values, words):
    with pytest.raises(ConfigurationError, match=words):
        VerifierConfig(**values)


@virtually
async def test_a_reader_that_is_cancelled_between_ticks_loses_nothing():
    async with running(patience=0) as (_, verifier, _):
        session = CoveringVerifier(verifier, VerifierConfig()).attach(replace(open_message(max_tokens=2), cover=Cover(0, 250)))
        heard = []
        while not heard or not isinstance(heard[-1], Finished):
            try:
                async with asyncio.timeout(0.1):
                    heard.append(await session.next())
            except TimeoutError:
                continue
        assert sum(isinstance(message, Verdict) and not is_filler(message) for message in heard) == 2
