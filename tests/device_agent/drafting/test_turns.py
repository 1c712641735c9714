"""Who shares a draft step: the rule's promises, over whatever waits."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.drafting.turns import FIRST_WORD_S, LEAST_CUT, SLOWDOWN, STARVED_S, Claim, Grant, fair, first_come
from device_agent.tasks.promises import Promise, highest_rate
from speculation.shaping.costs import Work

WEIGHTS_S, ROW_S, TOKEN_S = 0.009, 0.00018, 1e-6


def cost(works):
    """A phone: 9 ms for the weights, 0.18 ms a row, a microsecond a cached token."""
    reading = WEIGHTS_S + TOKEN_S * sum(work.past_tokens + work.new_tokens for work in works)
    return max(reading, ROW_S * sum(work.new_tokens for work in works))


def granted(claims, grants):
    """The works of a step."""
    return [
        work
        for grant in grants
        for work in (
            claims[grant.index].works if grant.rows is None else (Work(claims[grant.index].works[0].past_tokens, grant.rows),)
        )
    ]


def least(claim):
    return (Work(claim.works[0].past_tokens, 1),) if claim.can_be_cut else claim.works


def token(priority=0, since_s=0.0, past=0, num_branches=1, **more):
    return Claim(priority, since_s, (Work(past, 1),) * num_branches, **more)


def text(length, priority=0, since_s=0.0):
    return Claim(priority, since_s, (Work(0, length),))


def as_it_can_be(claim):
    """A promise has a moment, and counts from the first word on."""
    return dataclasses.replace(claim, is_promised=claim.is_promised and claim.due_s is not None and not claim.is_first)


works = st.builds(Work, st.integers(0, 20_000), st.integers(1, 8))
texts = st.builds(Work, st.just(0), st.integers(1, 3000)).map(lambda work: (work,))
claims_at_1 = st.lists(
    st.builds(
        Claim,
        st.integers(-2, 2),
        st.floats(0.0, 1.0),
        st.lists(works, min_size=1, max_size=4).map(tuple) | texts,
        st.none() | st.floats(0.5, 3.0),
        st.booleans(),
        st.booleans(),
    ).map(as_it_can_be),
    min_size=1,
    max_size=7,
)


@given(claims_at_1)
def test_whoever_waits_somebody_runs_and_nobody_runs_twice_or_reads_what_it_has_not(claims):
    grants = fair(claims, 1.0, cost)
    assert grants
    assert len({grant.index for grant in grants}) == len(grants)
    for grant in grants:
        claim = claims[grant.index]
        assert grant.rows is None or (claim.can_be_cut and 1 <= grant.rows < claim.works[0].new_tokens)


def needed_of(claims):
    late_by_s = 1.0 + 2 * cost([work for claim in claims for work in least(claim)])
    late = [claim for claim in claims if claim.is_promised and claim.due_s < late_by_s]
    highest = max(claim.priority for claim in claims)
    needed = late or [claim for claim in claims if claim.priority == highest]
    oldest = min(claims, key=lambda claim: claim.since_s)
    return needed, late, [oldest] if 1.0 - oldest.since_s >= STARVED_S else []


def is_alone(needed, late, starved):
    """Whether it is a first word that all others make way for."""
    first, *more = {id(claim): claim for claim in (*needed, *starved)}.values()
    return not late and not more and first.is_first and cost(first.works) <= FIRST_WORD_S


@given(claims_at_1)
def test_the_needed_run_and_a_step_is_not_slowed_beyond_what_is_said(claims):
    if len({claim.priority for claim in claims}) == 1 and not any(c.is_promised or c.can_be_cut for c in claims):
        return  # all alike: all run
    needed, late, starved = needed_of(claims)
    grants = fair(claims, 1.0, cost)
    running = [claims[grant.index] for grant in grants]
    assert all(any(claim is each for each in running) for claim in (*needed, *starved))
    if is_alone(needed, late, starved):
        assert granted(claims, grants) == granted(needed, fair(needed, 1.0, cost))
        return
    everyone = {id(claim): claim for claim in (*needed, *starved)}.values()
    alone_s = cost([work for claim in everyone for work in least(claim)])
    slack_s = min((claim.due_s for claim in late), default=0.0) - 1.0
    if len(claims) > 1:
        assert cost(granted(claims, grants)) <= max((1 + SLOWDOWN) * alone_s, slack_s) + 1e-12
    left_out = [claim for index, claim in enumerate(claims) if index not in {grant.index for grant in grants}]
    for claim in left_out:  # nobody waits where there was room
        assert cost([*granted(claims, grants), *least(claim)]) > (1 + SLOWDOWN) * alone_s


def test_alike_streams_all_run_and_so_does_a_lower_one_that_costs_next_to_nothing():
    assert fair([token(), token(past=9000, num_branches=4)], 0.1, cost) == [Grant(0), Grant(1)]
    assert fair([token(1), token(0, past=100), token(-1, past=100)], 0.1, cost) == [Grant(0), Grant(1), Grant(2)]


def test_a_lower_priority_that_would_slow_a_higher_one_waits_and_the_smaller_one_behind_it_does_not():
    assert fair([token(0, past=5000), token(1), token(-1, past=100)], 0.1, cost) == [Grant(1), Grant(2)]


def test_a_first_word_that_is_near_is_written_as_if_it_were_alone_and_one_that_is_not_is_shared_with():
    near, far = (token(1, past=past, is_first=True) for past in (90_000, 92_000))
    text_of_256 = Claim(1, 0.0, (Work(0, 256),), is_first=True)
    below, promised = token(0, past=10), token(0, past=10, due_s=0.11, is_promised=True)
    assert fair([below, near], 0.1, cost) == [Grant(1)]
    assert fair([below, text_of_256], 0.1, cost) == [Grant(1, 64)]
    assert [grant.index for grant in fair([below, far], 0.1, cost)] == [0, 1]
    assert [grant.index for grant in fair([below, dataclasses.replace(near, is_first=False)], 0.1, cost)] == [0, 1]
    assert [grant.index for grant in fair([promised, text_of_256], 0.1, cost)] == [0, 1]
    assert [grant.index for grant in fair([near, dataclasses.replace(near)], 0.1, cost)] == [0, 1]
    assert fair([below, near], STARVED_S, cost)[0] == Grant(0)


def test_within_a_priority_what_is_due_first_goes_first():
    one, other = token(0, since_s=0.01, past=600, due_s=5.0), token(0, since_s=0.02, past=600, due_s=4.0)
    assert fair([one, other, token(1)], 0.1, cost) == [Grant(1), Grant(2)]
    assert fair([one, dataclasses.replace(other, due_s=6.0), token(1)], 0.1, cost) == [Grant(0), Grant(2)]


def test_a_promised_token_that_would_be_late_goes_before_any_priority_and_one_that_is_ahead_does_not():
    agent = token(5, since_s=4.9, past=3000)
    reader = token(0, since_s=4.9, past=3000, due_s=10.0, is_promised=True)
    assert fair([agent, reader], 5.0, cost) == [Grant(0)]
    assert fair([agent, dataclasses.replace(reader, due_s=5.01)], 5.0, cost) == [Grant(1)]


def test_others_join_a_promised_token_where_the_step_still_ends_before_it_is_due():
    agent = token(5, since_s=4.9, past=3000)
    reader = token(0, since_s=4.9, past=100, due_s=5.013, is_promised=True)
    assert fair([agent, reader], 5.0, cost) == [Grant(0), Grant(1)]
    assert fair([agent, dataclasses.replace(reader, due_s=5.011)], 5.0, cost) == [Grant(1)]


def test_who_waited_too_long_runs_whatever_its_priority():
    assert fair([token(9, since_s=1.0), token(-9, past=50_000)], STARVED_S - 0.01, cost) == [Grant(0)]
    assert fair([token(9, since_s=1.0), token(-9, past=50_000)], STARVED_S, cost) == [Grant(0), Grant(1)]


def test_a_long_text_is_read_in_pieces_of_about_a_step_and_alone_the_pieces_are_even_and_cost_nothing_more():
    free = 55  # rows in 1.1 times 9 ms
    (alone,) = fair([text(500)], 0.0, cost)
    assert alone.rows == 56  # 500 in 9 pieces of at least 55
    assert fair([text(2 * free - 1)], 0.0, cost) == [Grant(0)]
    beside = fair([token(1, past=10), text(500)], 0.0, cost)
    assert [grant.index for grant in beside] == [0, 1]
    assert beside[1].rows in range(free - 3, free)
    assert fair([text(LEAST_CUT), token(1)], 0.0, cost) == [Grant(0), Grant(1)]


def test_first_come_takes_all_as_they_are():
    assert first_come([text(500), token(9)]) == [Grant(0), Grant(1)]


@dataclass
class Writer:
    """A stream in a run of steps: it asks again as soon as it has a token."""

    priority: int
    past: int
    rate: float | None = None
    since_s: float = 0.0
    num_tokens: int = 0
    longest_wait_s: float = 0.0
    latest_s: float = 0.0

    def claim(self):
        due_s = None if self.rate is None else self.num_tokens / self.rate
        return Claim(self.priority, self.since_s, (Work(self.past, 1),), due_s, self.rate is not None)

    def ran(self, now_s):
        self.longest_wait_s = max(self.longest_wait_s, now_s - self.since_s)
        if self.rate is not None:
            self.latest_s = max(self.latest_s, now_s - self.num_tokens / self.rate)
        self.num_tokens += 1
        self.since_s = now_s


def run(writers, until_s):
    """Steps one after the other; the longest."""
    now_s = longest_s = 0.0
    while now_s < until_s:
        claims = [writer.claim() for writer in writers]
        grants = fair(claims, now_s, cost)
        took_s = cost(granted(claims, grants))
        now_s, longest_s = now_s + took_s, max(longest_s, took_s)
        for grant in grants:
            writers[grant.index].ran(now_s)
    return longest_s


writers_of = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 15_000)), min_size=2, max_size=6)


@given(writers_of)
def test_nobody_starves_whatever_the_priorities(given_writers):
    writers = [Writer(*each) for each in given_writers]
    longest_s = run(writers, 2.5)
    for writer in writers:
        assert max(writer.longest_wait_s, 2.5 - writer.since_s) <= STARVED_S + (len(writers) + 1) * longest_s


@given(writers_of, st.lists(st.tuples(st.floats(1, 60), st.integers(0, 4000), st.integers(-3, 3)), min_size=1, max_size=4))
def test_promised_rates_are_kept_whenever_they_fit_whoever_else_writes(given_writers, asked):
    made, readers = [], []
    for rate, past, priority in asked:
        if rate <= highest_rate(made, past, cost):
            made.append(Promise(rate, past))
            readers.append(Writer(priority, past, rate))
    greedy = [Writer(priority, min(past, 3000)) for priority, past in given_writers]
    longest_s = run([*greedy, *readers], 2.5)
    for reader in readers:
        assert reader.latest_s <= 1 / reader.rate + 6 * longest_s


@pytest.mark.parametrize("rows", [1, 8])
def test_a_stream_alone_takes_its_step_whole(rows):
    assert fair([Claim(0, 0.0, (Work(5, rows),) * 3)], 1.0, cost) == [Grant(0)]
