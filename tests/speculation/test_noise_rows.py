from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from speculation import noise
from speculation.noise_rows import KeptRows

SIZE = 1000
ROW_BYTES = 4 * SIZE


@pytest.fixture
def drawn(monkeypatch):
    """How many rows each call drew."""
    counts, draw = [], noise.bits_of_rows

    def counted(seeds, positions, size):
        counts.append(len(seeds))
        return draw(seeds, positions, size)

    monkeypatch.setattr(noise, "bits_of_rows", counted)
    return counts


def alone(address, size=SIZE):
    seed, position = address
    return noise.bits([seed], [position], np.arange(size))


@pytest.mark.parametrize(
    "addresses",
    [
        [(7, 0)],
        [(7, 3), (7, 4), (9, 3), (7, 3)],
        [(2**64 - 1, noise.MAX_POSITION)],
        [(1, noise.MAX_POSITION - 2), (2, 5)],
        [(seed, 2**33 + 1) for seed in range(100)],
    ],
)
def test_rows_are_the_bits_of_their_addresses(addresses):
    kept = KeptRows()
    for _ in range(2):
        for address, row in zip(addresses, kept.bits(addresses, SIZE), strict=True):
            assert np.array_equal(row, alone(address))


def test_the_positions_that_follow_fill_up_a_call_and_are_there_when_asked_for(drawn):
    kept, at_once = KeptRows(), noise.rows_at_once(SIZE)
    kept.bits([(7, 10)], SIZE)
    assert drawn == [at_once]
    later = [(7, 10 + step) for step in range(at_once)]
    assert np.array_equal(kept.bits(later, SIZE), [alone(address) for address in later])
    assert drawn == [at_once]
    kept.bits([(7, 10 + at_once)], SIZE)
    assert len(drawn) == 2


def test_nothing_is_drawn_beside_as_many_rows_as_fill_a_call(drawn):
    kept, at_once = KeptRows(), noise.rows_at_once(SIZE)
    kept.bits([(seed, 4) for seed in range(at_once + 3)], SIZE)
    assert drawn == [at_once + 3]


def test_rows_of_another_size_are_other_rows():
    kept = KeptRows()
    assert [len(kept.bits([(7, 3)], size)[0]) for size in (SIZE, 10, SIZE)] == [SIZE, 10, SIZE]


def test_the_least_recently_used_row_is_forgotten_first(drawn):
    size = noise._COUNTERS_OF_ROWS * 4  # a call draws a single one
    kept = KeptRows(limit_bytes=2 * 4 * size)
    for position in (1, 2, 1, 3, 1):
        kept.bits([(7, position)], size)
    assert drawn == [1, 1, 1]
    kept.bits([(7, 2)], size)
    assert drawn == [1, 1, 1, 1]


def test_a_row_keeps_no_others_that_were_drawn_with_it():
    kept = KeptRows()
    rows = kept.bits([(1, position) for position in range(noise.rows_at_once(SIZE))], SIZE)
    assert len(rows) > 1
    assert {row.nbytes if row.base is None else row.base.nbytes for row in rows} == {ROW_BYTES}


def test_more_rows_than_are_kept_are_answered_all_the_same():
    kept = KeptRows(limit_bytes=3 * ROW_BYTES)
    addresses = [(seed, 1) for seed in range(50)]
    assert np.array_equal(kept.bits(addresses, SIZE), [alone(address) for address in addresses])
    assert len(kept._rows) <= 3
    assert kept._num_bytes == sum(row.nbytes for row in kept._rows.values())


def test_a_row_that_is_kept_cannot_be_written_to():
    kept = KeptRows()
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            kept.bits([(7, 3)], SIZE)[0][0] = 1


def test_a_position_below_0_is_refused():
    with pytest.raises(ValueError, match="positions start at 0"):
        KeptRows().bits([(1, 0), (1, -1)], SIZE)


def test_threads_that_ask_at_once_get_their_own_rows():
    kept = KeptRows(limit_bytes=20 * ROW_BYTES)

    def ask(seed):
        return all(np.array_equal(kept.bits([(seed, p), (seed, p + 1)], SIZE)[1], alone((seed, p + 1))) for p in range(40))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))
