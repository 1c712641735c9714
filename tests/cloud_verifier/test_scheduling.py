"""Which drafts of a pass pay, and how far prompts may stretch it."""

import math
from dataclasses import replace
from functools import partial
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_verifier.costs import LinearCosts, PassShape
from cloud_verifier.scheduling import (
    DECODING_ROWS,
    PREFILL_STRETCH,
    PRIOR_CHANCE,
    Claim,
    Overhead,
    Survival,
    paying_drafts,
    share_rows,
)

CLAIM = Claim(1, 0, 50, 0.8, "tenant", 0, 0, math.inf, 0)
FREE = LinearCosts(pass_s=0.03)
BY_ROW = LinearCosts(pass_s=1e-6, row_s=1e-3)
BETWEEN = LinearCosts(pass_s=1.5e-3, session_s=1e-4, row_s=1.6e-4, evened_s=3e-5, attended_s=5e-7)
MAX_ROWS = 256


def tokens_a_second(claims, drafts, costs, overhead_s=0.0):
    """By the definition, apart from how it is searched for."""
    shape, tokens = PassShape(), 0.0
    for claim, count in zip(claims, drafts, strict=True):
        shape = shape.with_session(claim.num_uncached + count, claim.num_cached)
        tokens += sum(claim.chance**depth for depth in range(count + 1))
    return tokens / (overhead_s + costs.seconds(shape))


def test_where_rows_are_free_every_draft_is_run():
    claims = [replace(CLAIM, num_drafts=8), replace(CLAIM, num_drafts=3, chance=0.1)]
    assert paying_drafts(claims, FREE, 0.0, MAX_ROWS) == [8, 3]


def test_where_every_row_costs_a_token_no_draft_is_run():
    assert paying_drafts([replace(CLAIM, num_drafts=8)] * 3, BY_ROW, 0.0, MAX_ROWS) == [0, 0, 0]


def test_what_lies_between_passes_makes_drafts_pay():
    claims = [replace(CLAIM, num_drafts=8)]
    assert paying_drafts(claims, BY_ROW, 0.0, MAX_ROWS) == [0]
    assert paying_drafts(claims, BY_ROW, 0.02, MAX_ROWS)[0] > 3


@pytest.mark.parametrize("chances", [(0.9, 0.5), (0.7, 0.7), (0.95, 0.2)])
@pytest.mark.parametrize("others", [0, 3, 30])
def test_no_other_choice_of_drafts_gives_a_twentieth_more_tokens_a_second(chances, others):
    """All choices are tried. Taking the likeliest first is the optimum but for evened rows, which come in twos."""
    claims = [replace(CLAIM, num_drafts=5, chance=chance) for chance in chances] + [CLAIM] * others
    chosen = paying_drafts(claims, BETWEEN, 0.0, MAX_ROWS)
    rate = tokens_a_second(claims, chosen, BETWEEN)
    for drafts in product(range(6), repeat=2):
        assert rate >= tokens_a_second(claims, [*drafts, *[0] * others], BETWEEN) / 1.05


@given(
    st.lists(
        st.builds(partial(replace, CLAIM), num_drafts=st.integers(0, 6), chance=st.floats(0.01, 0.99)), min_size=1, max_size=6
    ),
    st.sampled_from([FREE, BY_ROW, BETWEEN]),
)
def test_what_is_chosen_never_gives_fewer_tokens_a_second_than_decoding_alone(claims, costs):
    chosen = paying_drafts(claims, costs, 0.0, MAX_ROWS)
    assert all(0 <= count <= claim.num_drafts for count, claim in zip(chosen, claims, strict=True))
    assert tokens_a_second(claims, chosen, costs) >= tokens_a_second(claims, [0] * len(claims), costs) * (1 - 1e-9)


@pytest.mark.parametrize("sampled_s", [0.0, 5e-4, 0.1])
def test_what_drawing_costs_does_not_change_which_drafts_pay_since_as_many_are_drawn_as_there_are_tokens(sampled_s):
    greedy = [replace(CLAIM, num_drafts=8, chance=0.7)] * 4
    drawn = [replace(claim, is_sampled=True) for claim in greedy]
    assert 0 < sum(paying_drafts(greedy, BETWEEN, 0.0, MAX_ROWS)) < 4 * 8
    assert paying_drafts(drawn, replace(BETWEEN, sampled_s=sampled_s), 0.0, MAX_ROWS) == paying_drafts(
        greedy, BETWEEN, 0.0, MAX_ROWS
    )


def test_of_two_sessions_the_one_whose_drafts_are_likelier_runs_more():
    claims = [replace(CLAIM, num_drafts=8, chance=0.9), replace(CLAIM, num_drafts=8, chance=0.4)]
    first, second = paying_drafts(claims, BETWEEN, 0.0, MAX_ROWS)
    assert first > second


def test_of_equal_drafts_the_nearer_deadline_comes_first_and_then_the_higher_priority():
    late, soon, urgent = (
        replace(CLAIM, num_drafts=1, deadline_s=9.0),
        replace(CLAIM, num_drafts=1, deadline_s=1.0),
        replace(CLAIM, num_drafts=1, deadline_s=9.0, priority=1),
    )
    only_one = LinearCosts(pass_s=1e-4, row_s=1e-3)

    class OnlyOneDraft:
        """Costs by which one draft pays and two do not."""

        def seconds(self, shape):
            return 1e-3 if shape.num_rows <= shape.num_sessions + 1 else only_one.seconds(shape)

    assert paying_drafts([late, soon, urgent], OnlyOneDraft(), 0.0, MAX_ROWS) == [0, 1, 0]
    assert paying_drafts([late, urgent], OnlyOneDraft(), 0.0, MAX_ROWS) == [0, 1]


def test_without_costs_every_draft_is_run():
    assert share_rows([replace(CLAIM, num_drafts=8, chance=0.01)], None, 0.0, MAX_ROWS) == [9]


def test_a_prompt_stretches_the_pass_of_those_who_decode_only_so_far():
    prompt = replace(CLAIM, num_uncached=1000, num_cached=0)
    decoding = [replace(CLAIM, num_drafts=2)] * 4
    rows = share_rows([*decoding, prompt], BETWEEN, 0.0, MAX_ROWS)
    alone = share_rows(decoding, BETWEEN, 0.0, MAX_ROWS)
    assert rows[:4] == alone
    assert 1 <= rows[4] < MAX_ROWS - sum(alone)
    shapes = [PassShape(), PassShape()]
    for count in alone:
        shapes = [shape.with_session(count, 50) for shape in shapes]
    with_prompt_s = BETWEEN.seconds(shapes[0].with_session(rows[4], 0))
    assert with_prompt_s <= PREFILL_STRETCH * BETWEEN.seconds(shapes[1])
    assert with_prompt_s > 0.5 * PREFILL_STRETCH * BETWEEN.seconds(shapes[1])


@pytest.mark.parametrize(("session_s", "row_s", "num_read"), [(1.0, 0.0, 3), (0.5, 0.5, 3), (0.1, 0.9, 3)])
def test_of_more_prompts_than_there_is_time_for_as_many_are_read_as_there_is(session_s, row_s, num_read):
    prompts = [replace(CLAIM, num_uncached=1000, num_cached=0)] * 63
    rows = share_rows([CLAIM, *prompts], LinearCosts(1e-6, session_s=session_s, row_s=row_s), 0.0, MAX_ROWS)
    assert rows[0] == 1
    assert sum(rows[1:]) == num_read


def test_a_prompt_alone_fills_the_pass():
    assert share_rows([replace(CLAIM, num_uncached=1000, num_cached=0)], BETWEEN, 0.0, MAX_ROWS) == [MAX_ROWS]


@pytest.mark.parametrize("num_uncached", [DECODING_ROWS + 1, 40, MAX_ROWS - 3])
def test_the_pass_that_ends_a_prompt_runs_the_drafts_behind_it(num_uncached):
    prompt = replace(CLAIM, num_uncached=num_uncached, num_cached=0, num_drafts=3)
    assert share_rows([prompt], FREE, 0.0, MAX_ROWS) == [num_uncached + 3]
    assert share_rows([replace(prompt, chance=0.001)], BY_ROW, 0.0, MAX_ROWS) == [num_uncached]
    beside = share_rows([prompt, CLAIM], replace(FREE, pass_s=1.0), 0.0, MAX_ROWS + 1)
    assert beside == [num_uncached + 3, 1]


def test_a_pass_that_does_not_end_a_prompt_has_no_drafts_behind_it():
    prompt = replace(CLAIM, num_uncached=MAX_ROWS + 1, num_cached=0, num_drafts=3)
    assert paying_drafts([prompt, replace(CLAIM, num_drafts=2)], FREE, 0.0, MAX_ROWS) == [0, 2]
    assert share_rows([prompt], FREE, 0.0, MAX_ROWS) == [MAX_ROWS]


def test_a_prompt_goes_on_however_little_is_left():
    prompt, steep = replace(CLAIM, num_uncached=1000), LinearCosts(pass_s=1e-6, row_s=1.0)
    assert share_rows([CLAIM, prompt], steep, 0.0, MAX_ROWS)[1] >= 1
    # Not for one row of it is there time, so far behind its beginning.
    behind = replace(prompt, num_cached=10_000)
    assert share_rows([CLAIM, behind], replace(steep, attended_s=1.0), 0.0, MAX_ROWS) == [1, 1]


def test_what_is_left_of_a_prompt_counts_as_decoding_only_where_it_is_short():
    assert replace(CLAIM, num_uncached=DECODING_ROWS).is_decoding
    assert not replace(CLAIM, num_uncached=DECODING_ROWS + 1).is_decoding


def test_survival_follows_what_was_compared():
    survival = Survival()
    assert survival.chance == pytest.approx(PRIOR_CHANCE)
    for _ in range(200):
        survival.learn((1, 2, 3, 4), (1, 2, 3, 4, 5))
    assert survival.chance > 0.98
    for _ in range(200):
        survival.learn((1, 2), (9,))
    assert survival.chance < 0.02


def test_drafts_that_were_not_run_are_compared_as_far_as_choices_reach():
    """One row was run and chose; of three drafts only the first can be judged by that."""
    survival, same = Survival(), Survival()
    survival.learn((1, 2, 3), (1,))
    same.learn((1,), (1,))
    assert survival.chance == same.chance > PRIOR_CHANCE
    survival.learn((), (1,))
    assert survival.chance == same.chance
    survival.learn((1, 2, 3), (1, 9, 3))
    same.learn((1, 2), (1, 9))
    assert survival.chance == same.chance


def test_only_gaps_between_passes_that_follow_at_once_are_overhead():
    overhead = Overhead()
    overhead.begins(0.0)
    overhead.ended(1.0)
    assert overhead.mean_s == 0.0
    for _ in range(200):
        overhead.begins(1.002)
        overhead.ended(1.0)
    assert overhead.mean_s == pytest.approx(0.002, rel=1e-3)
    overhead.rests()
    overhead.begins(50.0)
    assert overhead.mean_s == pytest.approx(0.002, rel=1e-3)


PROMPT = replace(CLAIM, num_uncached=300, num_cached=0, served=7)


def test_prompts_are_read_one_after_the_other_the_shortest_first():
    claims = [PROMPT, replace(PROMPT, num_uncached=90), CLAIM, replace(PROMPT, num_uncached=130)]
    assert share_rows(claims, None, 0.0, 241) == [80, 90, 1, 70], (
        "and who was served longest ago, the first of equals, has its share"
    )


def test_prompts_of_higher_priority_are_read_first():
    claims = [replace(PROMPT, served=1), PROMPT, replace(PROMPT, num_uncached=90), replace(PROMPT, priority=1)]
    assert share_rows(claims, None, 0.0, 400) == [104, 0, 0, 296]


def test_the_prompts_of_tenants_share_a_pass_evenly():
    one, other = replace(PROMPT, tenant="one"), replace(PROMPT, tenant="other")
    rows = share_rows([one, one, other, one], None, 0.0, 300)
    assert (rows[0] + rows[1] + rows[3], rows[2]) == (150, 150)


def test_a_long_prompt_is_read_to_its_end_while_short_ones_keep_coming():
    left, num_passes = 2000, 0
    served = 0
    while left > DECODING_ROWS:
        num_passes += 1
        claims = [replace(PROMPT, num_uncached=left, served=served), *[replace(PROMPT, num_uncached=60, served=num_passes)] * 4]
        rows = share_rows(claims, None, 0.0, 240)
        assert sum(rows) == 240
        left -= rows[0]
        served = num_passes if rows[0] else served
    assert num_passes <= 2000 / (240 / 5) * 2
