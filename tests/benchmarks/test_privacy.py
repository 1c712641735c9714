"""The watcher of the privacy benchmark: right where streams differ, no better than chance where they do not."""

from __future__ import annotations

import pytest

from benchmarks.eavesdropper import Sample, Seen, accuracy
from benchmarks.privacy import COVERS, LEAK_COVERS, named
from benchmarks.privacy_runs import beginning


def stream(*messages: tuple[float, int]) -> list[Seen]:
    """Up and down by turns."""
    return [Seen(at_s, number % 2 == 0, num_bytes) for number, (at_s, num_bytes) in enumerate(messages)]


def guessed(*lots: list[list[Seen]]) -> float:
    return accuracy([[Sample(prompt, seen) for prompt, seen in enumerate(lot)] for lot in lots])


def test_streams_that_differ_by_sizes_are_told_apart():
    lot = [stream((0, 100), (0.1, size), (0.2, 100)) for size in (30, 40, 50)]
    assert guessed(lot, lot) == 1


def test_streams_that_differ_by_times_are_told_apart():
    lot = [stream((0, 100), (at_s, 30), (1.0, 100)) for at_s in (0.1, 0.3, 0.5)]
    assert guessed(lot, lot) == 1


def test_streams_that_are_the_same_are_guessed_by_chance():
    lot = [stream((0, 256), (0.1, 256), (0.2, 256))] * 4
    assert guessed(lot, lot, lot) == pytest.approx(1 / 4)


def test_the_lot_that_is_guessed_is_not_known():
    """Else every answer would be nearest to itself."""
    lot = [stream((0, 100), (0.1, size), (0.2, 100)) for size in (30, 40, 50)]
    assert guessed(lot, lot[1:] + lot[:1]) == 0


def test_an_end_that_differs_is_seen_in_the_whole_and_not_in_the_beginning():
    lot = [[Seen(0.02 * tick, False, 256) for tick in range(length)] for length in (100, 150, 200)]
    assert guessed(lot, lot) == 1
    begun = [beginning(seen, 1.5) for seen in lot]
    assert guessed(begun, begun) == pytest.approx(1 / 3)


def test_every_cover_that_is_measured_can_be_had_and_has_a_name_of_its_own():
    covers = {*COVERS, *LEAK_COVERS}
    assert [cover for cover in covers if cover.fault] == []
    assert len({named(cover) for cover in covers}) == len(covers)
