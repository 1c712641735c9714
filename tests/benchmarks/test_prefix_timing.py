"""What a watcher of first tokens' times could tell."""

import pytest

from benchmarks.prefix_timing import Row

QUICK, SLOW = (1.0, 2.0, 1.5, 1.2), (9.0, 8.0, 8.5, 7.0)


@pytest.mark.parametrize(
    ("known", "new", "quicker", "best_guess"),
    [(QUICK, SLOW, 1.0, 1.0), (SLOW, SLOW, 0.5, 0.5), (SLOW, QUICK, 0.0, 0.5), ((1.0, 9.0), (8.0, 2.0), 0.5, 0.75)],
)
def test_what_can_be_told_by_times(known, new, quicker, best_guess):
    row = Row("somebody", known, new)
    assert row.quicker == quicker
    assert row.best_guess == best_guess
    low, high = row.interval()
    assert low <= quicker <= high
