"""Everything that matters about the protocol, at once: whatever the link does, the text is that of plain decoding."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.speculation.protocol.hostile_pair import HostilePair, TableModel

OFTEN = ("draft", "draft", "branch", "flush", "deliver_up", "run_pass", "deliver_down")
SELDOM = ("cut", "die")
STEP = st.tuples(st.sampled_from(OFTEN * 4 + SELDOM), st.integers(0, 63))
# Lists left to themselves are about five long: too short to hear a verdict, lose the stream and go on.
STEPS = st.sampled_from([0, 20, 80]).flatmap(lambda length: st.lists(STEP, min_size=length, max_size=2 * length + 10))


NONE = st.none()


@st.composite
def pairs(draw, logprobs=NONE) -> HostilePair:
    model = TableModel(draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 6)))
    prompt = draw(st.lists(st.integers(0, 5), min_size=1, max_size=4))
    credits_ = draw(st.lists(st.sampled_from([1, 2, 3, 8, 40]), min_size=1, max_size=3))
    return HostilePair(model, prompt, draw(st.integers(1, 40)), credits_, draw(logprobs))


def play(pair: HostilePair, steps: list[tuple[str, int]]) -> None:
    for name, argument in steps:
        pair.step(name, argument)
    pair.drain()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs(), STEPS)
def test_the_text_is_that_of_plain_decoding_whatever_the_link_does(pair, steps):
    play(pair, steps)
    assert list(pair.device.final) == pair.expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs(st.integers(0, 3)), STEPS)
def test_every_final_token_is_told_with_its_log_probability_exactly_once(pair, steps):
    """By whichever way it became final, and over whatever streams: run, choice, end token, overlap, resume."""
    play(pair, steps)
    count, start = pair.device.logprobs, pair.device.generation_start
    places = range(start, len(pair.expected))
    assert pair.told == [pair.model.likelihood(pair.expected[:place], count) for place in places]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs(), STEPS)
def test_every_node_is_counted_once(pair, steps):
    play(pair, steps)
    for verifier in pair.verifiers:
        usage = verifier.usage
        pending = usage.proposed - usage.accepted - usage.late - usage.discarded
        assert 0 <= pending <= verifier.live_nodes
        assert usage.discarded >= 0
        assert verifier.finished is None or pending == 0


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs(), STEPS)
def test_a_closed_session_holds_no_nodes_and_asks_for_no_drafts(pair, steps):
    play(pair, steps)
    assert pair.device.room == 0
    assert pair.device.is_complete
    assert pair.device.usage == pair.current.verifier.finished.usage


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 12))
def test_right_drafts_that_arrive_in_time_are_all_accepted(seed, max_tokens, length):
    """Not safety but use: on a kind link no draft is wasted, and passes shrink by the drafts' length."""
    model = TableModel(seed, 6)
    pair = HostilePair(model, [3, 1], max_tokens, [40])
    while pair.device.finish_reason is None:
        for _ in range(length):
            pair.step("draft", 1)
        pair.step("flush", 1)
        while pair.current.up:
            pair.deliver_up(0)
        if pair.current.verifier.finished is None:
            pair.commit(pair.current, pair.current.verifier.plan(length))
        while pair.current.down:
            pair.deliver_down(1)
    usage = pair.device.usage
    num_generated = len(pair.expected) - 2
    assert usage.accepted == num_generated - usage.bonus
    assert usage.corrections == 0
    assert usage.passes == -(-num_generated // (length + 1))
