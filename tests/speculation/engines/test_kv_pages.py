"""Pages of a shared pool: nobody's twice, nobody's lost, and none taken where not all can be had."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.engines.kv_pages import PAGE, KvPages, pages_of
from speculation.errors import CapacityError

SLOTS, CONTEXT, POOL = 4, 3 * PAGE, 7


def test_pages_hold_what_they_say():
    assert [pages_of(n) for n in (0, 1, PAGE, PAGE + 1, CONTEXT)] == [0, 1, 1, 2, 3]


def test_a_cache_takes_pages_as_it_grows_and_none_where_it_has_room():
    pages = KvPages(SLOTS, CONTEXT, POOL)
    pages.grow([(2, 1), (0, PAGE + 1)])
    assert [len(pages.held(slot)) for slot in range(SLOTS)] == [2, 0, 1, 0]
    assert pages.take_changed() == {0, 2}
    pages.grow([(2, PAGE), (0, 5)])
    assert pages.num_free == POOL - 3
    assert pages.take_changed() == set()


def test_what_does_not_fit_takes_nothing():
    pages = KvPages(SLOTS, CONTEXT, POOL)
    pages.grow([(0, CONTEXT), (1, CONTEXT)])
    with pytest.raises(CapacityError, match=f"2 pages of {PAGE} tokens are needed, and 1 are left"):
        pages.grow([(2, 1), (3, 1)])
    assert (pages.num_free, len(pages.held(2))) == (1, 0)
    pages.give_back(0)
    pages.grow([(2, 1), (3, 1)])


@given(st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(-1, CONTEXT)), max_size=40))
def test_no_page_is_anybodys_twice_and_none_is_lost(steps):
    """A length of -1 ends a cache."""
    pages = KvPages(SLOTS, CONTEXT, POOL)
    for slot, length in steps:
        if length < 0:
            pages.give_back(slot)
            continue
        before = pages.held(slot).tolist()
        try:
            pages.grow([(slot, length)])
        except CapacityError:
            assert pages_of(length) - len(before) > pages.num_free
        assert pages.held(slot).tolist()[: len(before)] == before
        held = np.concatenate([pages.held(s) for s in range(SLOTS)])
        assert len(set(held.tolist())) == len(held) == POOL - pages.num_free
        assert not len(held) or (held.min() >= 1 and held.max() <= POOL)
