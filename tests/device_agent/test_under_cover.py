"""Answers under cover, under the virtual clock: what somebody on the line sees of them, and that they are the same answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from itertools import pairwise, takewhile

import pytest

from benchmarks.eavesdropper import Seen, Tap
from cloud_verifier.config import VerifierConfig
from cloud_verifier.covering import CoveringVerifier
from speculation.links.covered import CoveredConnector
from speculation.links.memory import MemoryConnector
from speculation.protocol.cover import UNCOVERED, Cover
from speculation.shaping import virtual_time
from tests.device_agent.doubles import DraftEngine, FullEngine, SlowEngine, agent_of, answer, plain_decoding, verifier
from tests.device_agent.test_reconnect import Turns

COVER = Cover(256, 20)
OLD = "a verifier of before"


def ask(cover, own=UNCOVERED, accuracy=0.8, **changes):
    """The last event of an answer and all that somebody on the line sees of it. ``own`` is what the verifier is set to."""
    return _asked(cover, own, accuracy, tuple(sorted(changes.items())))


@functools.cache
def _asked(cover, own, accuracy, changes):
    return virtual_time.run(_answered(cover, own, accuracy, dict(changes)))


async def _answered(cover, own, accuracy, changes):
    async with verifier(SlowEngine(0.041)) as made:
        config = VerifierConfig() if own == OLD else VerifierConfig(pad_bytes=own.pad_bytes, tick_ms=own.tick_ms)
        tap = Tap(MemoryConnector(made if own == OLD else CoveringVerifier(made, config)))
        async with agent_of(CoveredConnector(tap, cover), DraftEngine(accuracy, step_s=0.009)) as running:
            done = (await answer(running, **{"max_tokens": 30} | changes)).last
            num_seen = len(tap.seen)
            await asyncio.sleep(5)
            assert len(tap.seen) == num_seen, "something was said behind the end"
        assert made.num_sessions == 0
    return done, tap.seen


def beginnings(*streams: list[Seen]) -> list[list[tuple[float, bool, int]]]:
    """When which way how much passed, each up to where the first of them ends; in one order for what passes at one moment."""
    end_s = min(seen[-1].at_s for seen in streams)
    cut = [list(takewhile(lambda message: message.at_s < end_s, seen)) for seen in streams]
    return [sorted((round(message.at_s, 6), message.is_up, message.num_bytes) for message in seen) for seen in cut]


OTHER = {"prompt": "another prompt, of another length", "accuracy": 0.1, "seed": 9, "temperature": 0.8, "max_tokens": 25}


def test_two_answers_look_the_same_until_the_shorter_one_ends():
    one, other = beginnings(ask(COVER)[1], ask(COVER, **OTHER)[1])
    assert len(one) > 20
    assert one == other
    assert {num_bytes for at_s, _, num_bytes in one if at_s > 0} == {256}


@pytest.mark.parametrize("cover", [UNCOVERED, Cover(256), Cover(0, 20)], ids=str)
def test_either_half_of_a_cover_alone_or_none_tells_them_apart(cover):
    one, other = beginnings(ask(cover)[1], ask(cover, **OTHER)[1])
    assert one != other


@pytest.mark.parametrize(
    ("cover", "changes"),
    [(COVER, {}), (Cover(1024, 100), {"temperature": 0.8, "seed": 5})],
    ids=["greedy", "sampled"],
)
def test_the_text_is_that_of_an_answer_without_cover(cover, changes):
    plain, _ = ask(UNCOVERED, **changes)
    done, _ = ask(cover, **changes)
    assert (done["event"], done["token_ids"], done["text"]) == ("done", plain["token_ids"], plain["text"])
    assert done["verified_count"] == len(done["token_ids"])


def test_the_cover_that_a_verifier_is_set_to_is_kept_for_who_asks_for_none():
    plain, _ = ask(UNCOVERED)
    done, seen = ask(UNCOVERED, own=COVER)
    assert done["token_ids"] == plain["token_ids"]
    down = [message for message in seen if not message.is_up]
    assert {message.num_bytes for message in down} == {256}
    assert {round(b.at_s - a.at_s, 6) for a, b in pairwise(down)} == {0.02}


def test_a_verifier_of_before_answers_a_device_that_asks_for_cover():
    plain, _ = ask(UNCOVERED)
    done, seen = ask(COVER, own=OLD)
    assert done["token_ids"] == plain["token_ids"]
    assert {message.num_bytes for message in seen[1:] if message.is_up} == {256}


def test_a_stop_string_ends_a_covered_answer_and_its_tick():
    plain, _ = ask(UNCOVERED)
    stop = plain["text"][10:13]
    done, seen = ask(COVER, stop=(stop,))
    assert (done["finish_reason"], done["text"]) == ("stop", plain["text"][:10])
    assert {message.num_bytes for message in seen[1:]} == {256}


@pytest.mark.parametrize("limit", [1, 2, 30])
def test_a_link_that_is_cut_while_it_ticks_comes_back_and_the_text_goes_on(limit):
    async def work():
        async with contextlib.AsyncExitStack() as stack:
            made = await stack.enter_async_context(verifier(SlowEngine(0.3)))
            turns = Turns((CoveringVerifier(made, VerifierConfig()), limit), (CoveringVerifier(made, VerifierConfig()), None))
            covered = CoveredConnector(turns, Cover(256, 50))
            running = await stack.enter_async_context(agent_of(covered, DraftEngine(0.7, step_s=0.2)))
            done = (await answer(running)).last
            assert made.num_sessions == 0
            return done, len(turns.links)

    done, num_links = virtual_time.run(work())
    truth = plain_decoding(FullEngine())
    assert (done["event"], list(done["token_ids"]), done["verified_count"]) == ("done", truth, len(truth))
    assert num_links == 2
