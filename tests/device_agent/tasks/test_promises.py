"""Rates that a phone promises: what is refused, and that what was promised fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.tasks.promises import LEAST_TOKENS, SPARE, Promise, Promises, highest_rate
from speculation.errors import CapacityError, InvalidRequestError
from speculation.shaping import profiles
from speculation.shaping.engine import PhoneCost
from speculation.shaping.models import parse_model

WEIGHTS_S, TOKEN_S = 0.01, 1e-6


def cost(works):
    """10 ms for the weights, and a microsecond for each cached token."""
    return WEIGHTS_S + TOKEN_S * sum(work.past_tokens for work in works)


def load(made):
    fastest = max(promise.tokens_per_s for promise in made)
    return fastest * WEIGHTS_S + sum(promise.tokens_per_s * promise.num_tokens * TOKEN_S for promise in made)


def test_alone_it_is_what_steps_there_are_less_the_slowdown_and_a_tenth_to_catch_up_with():
    assert highest_rate((), 0, cost) == pytest.approx(100 * 0.9 / 1.1)
    assert highest_rate((), 1000, cost) == pytest.approx(1 / 0.011 * 0.9 / 1.1)


def test_beside_a_faster_one_a_slower_one_pays_for_its_cache_alone():
    made = [Promise(70, 1000)]
    spare = SPARE - 70 * 0.011
    assert highest_rate(made, 1000, cost) == pytest.approx(spare / 1000 / TOKEN_S)


rates, lengths = st.floats(0.1, 200), st.integers(0, 20_000)


@given(st.lists(st.tuples(rates, lengths), max_size=6), lengths)
def test_the_highest_rate_fits_and_a_higher_one_does_not(asked, num_tokens):
    made = []
    for rate, length in asked:
        if rate <= highest_rate(made, length, cost):
            made.append(Promise(rate, length))
    highest = highest_rate(made, num_tokens, cost)
    spare = SPARE
    if highest:
        assert load([*made, Promise(highest, num_tokens)]) <= spare + 1e-9
    if num_tokens or highest >= max((each.tokens_per_s for each in made), default=0):
        assert load([*made, Promise(highest * 1.01 + 0.01, num_tokens)]) > spare - 1e-9


def test_what_no_phone_of_this_kind_could_do_is_the_requests_fault_and_what_others_took_is_not():
    phone = PhoneCost(profiles.phone("dimensity-9300"), parse_model("0.9B:int4"))
    promises = Promises(lambda: phone.step_s)
    with pytest.raises(InvalidRequestError, match=r"tokens_per_s must be at most [78]\d(\.\d)?, not 200") as refused:
        promises.make(200, 500)
    assert refused.value.parameter == "tokens_per_s"
    first = promises.make(60, 5000)
    with pytest.raises(CapacityError, match=r"tokens_per_s 60 cannot be promised: beside 1 .* ask") as full:
        promises.make(60, 5000)
    told = float(str(full.value).partition("has ")[2].split()[0])
    promises.make(told, 5000)  # the nearest thing that works, works
    promises.end(first)
    promises.make(50, 5000)


def test_who_wants_no_rate_is_promised_none_and_an_unknown_phone_refuses_none():
    promises = Promises(lambda: None)
    assert promises.make(None, 5) is None
    promises.end(None)
    assert promises.make(5000, 5) == Promise(5000, 5)


def test_beside_a_verifier_no_rate_is_promised_that_texts_do_not_come_at_there():
    promises = Promises(lambda: cost)
    promises.pace.came(LEAST_TOKENS - 1, 1.0)
    assert promises.make(70, 0, is_alone=False) == Promise(70, 0)  # one answer was too short to tell
    promises.pace.came(100, 3.0)
    pace = (0.7 * 49 + 100) / (0.7 * 1 + 3)
    assert promises.pace.tokens_per_s == pytest.approx(pace)
    with pytest.raises(
        CapacityError, match=r"beside this verifier texts came at 36\.2 tokens .*; ask for 29\.6, use mode"
    ) as low:
        promises.make(40, 0, is_alone=False)
    promises.make(float(str(low.value).partition("ask for ")[2].partition(",")[0]), 0, is_alone=False)
    promises.make(40, 0)  # alone the phone can


def test_an_answer_that_came_at_once_tells_no_pace():
    promises = Promises(lambda: None)
    promises.pace.came(100, 0.0)
    assert promises.pace.tokens_per_s is None
    assert promises.make(5000, 5, is_alone=False) == Promise(5000, 5)
