"""Room for caches, by size classes."""

import pytest

from cloud_verifier.room import Room, unlimited
from speculation.errors import ConfigurationError


def room(limit=1000):
    """Classes of 100, 200 and 400 tokens, a byte and a half each."""
    return Room(limit, 400, lambda num_tokens: num_tokens * 3 // 2)


@pytest.mark.parametrize(("num_tokens", "size"), [(1, 150), (100, 150), (101, 300), (200, 300), (201, 600), (400, 600)])
def test_a_cache_is_counted_as_the_smallest_class_that_holds_it(num_tokens, size):
    assert room().size_of(num_tokens) == size


def test_a_context_that_no_share_divides_is_held_by_classes_that_are_rounded_up():
    assert Room(1000, 10, lambda num_tokens: num_tokens).size_of(3) == 3
    assert Room(1000, 10, lambda num_tokens: num_tokens).size_of(5) == 5


def test_what_is_taken_is_free_again_once_it_is_left():
    held = room()
    held.take("a", 600)
    held.take("b", 300)
    assert (held.free_bytes, held.fits(150), held.fits(100)) == (100, False, True)
    assert held.taken_bytes == {"1/4": 0, "1/2": 300, "1/1": 600}
    assert (held.leave("a"), held.leave("a")) == (600, 0)
    assert held.fits(600)


def test_what_is_taken_is_told_once_where_classes_have_one_size():
    held = Room(1000, 400, lambda num_tokens: 100 if num_tokens < 400 else 200)
    held.take("a", held.size_of(150))
    held.take("b", held.size_of(400))
    assert held.taken_bytes == {"1/4": 100, "1/2": 0, "1/1": 200}
    assert sum(held.taken_bytes.values()) == held.limit_bytes - held.free_bytes


def test_room_for_less_than_one_context_is_refused_and_says_what_one_takes():
    assert room(600).fits(600)
    with pytest.raises(ConfigurationError, match="599 do not hold one context of 400 tokens, which takes 600"):
        room(599)


def test_without_a_limit_everything_fits():
    held = unlimited()
    for number in range(1000):
        assert held.fits(held.size_of(1 << 40))
        held.take(number, held.size_of(1 << 40))
