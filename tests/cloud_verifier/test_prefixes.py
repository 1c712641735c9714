"""Caches of texts that ended: who finds which, how much of it, and which goes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_verifier.prefixes import LEAST_SHARED, Prefixes

TEXT = tuple(range(100, 140))


def kept(*texts, capacity=4, tenant="a"):
    prefixes = Prefixes(capacity)
    for cache, text in enumerate(texts):
        assert prefixes.put(tenant, text, cache) == []
    return prefixes


def test_a_text_that_goes_on_finds_all_of_what_was_kept_and_owns_it():
    prefixes = kept(TEXT)
    assert prefixes.take("a", [*TEXT, 1, 2]) == (0, len(TEXT))
    assert prefixes.take("a", [*TEXT, 1, 2]) is None


def test_the_last_token_of_a_text_is_never_shared():
    assert kept(TEXT).take("a", TEXT) == (0, len(TEXT) - 1)


def test_the_longest_beginning_is_taken():
    prefixes = kept([*TEXT[:20], 1], [*TEXT[:30], 2], [*TEXT[:25], 3])
    assert prefixes.take("a", TEXT) == (1, 30)
    assert prefixes.take("a", TEXT) == (2, 25)


def test_no_tenant_finds_what_another_left():
    prefixes = kept(TEXT, tenant="a")
    assert prefixes.take("b", [*TEXT, 1]) is None
    assert prefixes.take("a", [*TEXT, 1]) == (0, len(TEXT))


@pytest.mark.parametrize("shared", [0, 1, LEAST_SHARED - 1])
def test_a_beginning_that_is_too_short_is_left_alone(shared):
    prefixes = kept(TEXT)
    assert prefixes.take("a", [*TEXT[:shared], 1, 2, 3]) is None
    assert len(prefixes) == 1


def test_a_beginning_that_is_just_long_enough_is_kept_and_found():
    prefixes = kept(TEXT[:LEAST_SHARED])
    assert prefixes.take("a", TEXT) == (0, LEAST_SHARED)


def test_a_text_too_short_to_be_found_is_not_kept():
    prefixes = Prefixes(4)
    assert prefixes.put("a", TEXT[: LEAST_SHARED - 1], 7) == [7]
    assert not len(prefixes)


def test_the_one_that_was_put_first_goes_first():
    prefixes = kept(TEXT, TEXT, capacity=2)
    assert prefixes.put("a", TEXT, 2) == [0]
    assert prefixes.shrink(1) == [1]
    assert prefixes.shrink(1) == []
    assert prefixes.shrink(0) == [2]


def test_nothing_is_kept_where_there_is_no_room():
    assert Prefixes(0).put("a", TEXT, 5) == [5]


@given(st.lists(st.integers(0, 1), max_size=60), st.lists(st.integers(0, 1), max_size=60))
def test_what_is_shared_is_the_common_beginning(one, other):
    prefixes = Prefixes(1)
    if prefixes.put("a", one, 0):
        return
    shared = 0
    while shared < min(len(one), len(other) - 1) and one[shared] == other[shared]:
        shared += 1
    assert prefixes.take("a", other) == ((0, shared) if shared >= LEAST_SHARED else None)
