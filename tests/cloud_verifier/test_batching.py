"""Who gets how many rows."""

from hypothesis import given
from hypothesis import strategies as st

from cloud_verifier.batching import allot

demands = st.lists(st.tuples(st.integers(1, 600), st.integers(0, 50)), min_size=1, max_size=40)


def split(pairs):
    return [wanted for wanted, _ in pairs], [served for _, served in pairs]


def test_everybody_gets_all_where_all_fits():
    assert allot([1, 5, 250], [0, 0, 0], 256) == [1, 5, 250]


def test_a_long_prefill_takes_what_the_others_leave():
    assert allot([500, 1, 9], [0, 0, 0], 64) == [54, 1, 9]


def test_two_prefills_share_evenly():
    assert allot([500, 2, 500], [0, 0, 0], 66) == [32, 2, 32]


def test_more_sessions_than_rows_are_served_longest_ago_first():
    assert allot([1, 1, 1, 1], [9, 7, 8, 6], 2) == [0, 1, 0, 1]


@given(demands, st.integers(1, 300))
def test_the_budget_is_used_up_and_never_exceeded(pairs, max_rows):
    wanted, served = split(pairs)
    rows = allot(wanted, served, max_rows)
    assert all(0 <= got <= want for got, want in zip(rows, wanted, strict=True))
    assert sum(rows) == min(max_rows, sum(wanted))


@given(demands, st.integers(1, 300))
def test_nobody_who_wants_more_has_two_rows_less_than_another(pairs, max_rows):
    wanted, served = split(pairs)
    rows = allot(wanted, served, max_rows)
    for got, want in zip(rows, wanted, strict=True):
        assert got == want or got + 1 >= max(rows)


@given(demands, st.integers(1, 40))
def test_nobody_starves(pairs, max_rows):
    wanted, served = split(pairs)
    seen = set()
    for number in range(51, 51 + len(wanted) // max_rows + 1):
        for i, rows in enumerate(allot(wanted, served, max_rows)):
            if rows:
                served[i] = number
                seen.add(i)
    assert seen == set(range(len(wanted)))
