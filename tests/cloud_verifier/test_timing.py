"""What a verdict tells of its times, by hand and under the virtual clock."""

from __future__ import annotations

import asyncio

from cloud_verifier.timing import MOST_KEPT, Arrivals
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import MAX_WIRE_NUMBER, Cancel, Draft, Node, Timing, Verdict, VerdictKind
from tests.cloud_verifier.sessions import opened, truth_of
from tests.cloud_verifier.virtual import PASS_S, follow, now_s, running, virtually

PASS_US = round(PASS_S * 1e6)


def draft(first: int, last: int) -> Draft:
    return Draft(tuple(Node(number, number - 1 if number > 1 else 0, 5, 3) for number in range(first, last + 1)), 3)


def accepted(last_node: int) -> Verdict:
    return Verdict(3, last_node, last_node, 7, VerdictKind.ACCEPT)


def test_the_message_that_brought_the_last_node_is_the_one_that_counts():
    arrivals = Arrivals()
    for first, last, at_s in ((1, 2, 1.0), (3, 3, 2.0), (4, 6, 3.0)):
        arrivals.note(draft(first, last), at_s)
    told = [arrivals.timed([accepted(node)], 4, 3.5, 4.0)[0].timing for node in (2, 3, 4, 6)]
    assert told == [Timing(500_000, 4, held_us) for held_us in (3_000_000, 2_000_000, 1_000_000, 1_000_000)]


def test_what_is_repeated_or_brings_no_node_has_come_before():
    arrivals = Arrivals()
    arrivals.note(draft(1, 2), 1.0)
    arrivals.note(draft(1, 2), 2.0)
    arrivals.note(Draft((), 3, passes=True), 2.0)
    arrivals.note(Cancel(), 2.0)
    assert len(arrivals._came) == 1  # however often it is repeated
    assert arrivals.timed([accepted(2)], 3, 3.0, 4.0)[0].timing == Timing(1_000_000, 3, 3_000_000)


def test_what_no_verdict_ever_names_takes_no_memory_without_end():
    """A device may send dead nodes for as long as it likes: they need no credit."""
    arrivals = Arrivals()
    for number in range(1, 3 * MOST_KEPT + 1):
        arrivals.note(draft(number, number), float(number))
    assert len(arrivals._came) == MOST_KEPT
    last_lost = 2 * MOST_KEPT
    told = [arrivals.timed([accepted(node)], 2, 4e3, 4e3)[0].timing for node in (last_lost, last_lost + 1)]
    assert told == [Timing(0, 2), Timing(0, 2, round((4e3 - last_lost - 1) * 1e6))]


def test_without_a_node_it_is_not_told_how_long_it_was_there_and_of_several_verdicts_the_last_one_tells():
    decoded = Verdict(3, 0, 0, 7, VerdictKind.DECODED)
    first, second = Arrivals().timed([decoded, decoded], 2, 0.0, 0.25)
    assert (first.timing, second.timing) == (None, Timing(250_000, 2))


def test_no_time_is_beyond_what_the_wire_holds():
    assert Arrivals().timed([accepted(1)], 1, -1e9, 1e9)[0].timing == Timing(MAX_WIRE_NUMBER, 1)


@virtually
async def test_verdicts_tell_exactly_what_the_passes_took_and_only_to_who_asked():
    truth = truth_of((1, 2, 3), SamplingParameters(), 8)
    async with running() as (engine, _, connector):
        asking = await opened(connector, session_id="asking", timings=True)
        silent = await opened(connector, session_id="silent")
        async with asyncio.TaskGroup() as tasks:
            told, untold = tasks.create_task(follow(asking)), tasks.create_task(follow(silent))
            await asyncio.sleep(PASS_S / 4)  # the first pass runs
            began_s = now_s()
            await asking.send(Draft((Node(1, 0, truth[3], 3), Node(2, 1, truth[4]), Node(3, 2, truth[5])), 3))
    verdicts = [received for received in told.result() if isinstance(received.message, Verdict)]
    timings = [received.message.timing for received in verdicts]
    assert timings[0] == Timing(PASS_US, 3)
    assert [timing.pass_us for timing in timings] == [PASS_US] * len(timings)
    with_drafts = verdicts[1]
    assert with_drafts.message.last_node == 3  # the first came late: its place was decoded meanwhile
    assert with_drafts.message.timing == Timing(PASS_US, 3, round((with_drafts.at_s - began_s) * 1e6))
    assert {received.message.timing for received in untold.result() if isinstance(received.message, Verdict)} == {None}
    assert engine.open_caches == set()
