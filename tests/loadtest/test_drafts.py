"""What a device of a load test drafts: the recording on the true path and beside it, and nothing where nothing is known."""

import random

import numpy as np

from benchmarks.trace_file import Branch, Proposals, Trace
from loadtest.drafts import FromText, Nonsense, Recorded


def said(*first):
    return Proposals(np.array([[token, 99] for token in first], np.int64), np.full((len(first), 2), 0.5))


def trace():
    """The full model writes 1 2 3 4; the draft says 1 7 3 4: wrong at offset 1, and 8 9 behind that."""
    beside = [Branch(1, 0, said(8, 9)), Branch(1, 1, said(55))]
    return Trace("p", 2, 0.0, 1, np.array([1, 2, 3, 4]), said(1, 7, 3, 4), np.zeros((4, 2)), beside)


def test_behind_a_true_prefix_the_recorded_choice_is_drafted():
    drafter = Recorded(trace())
    assert [drafter.next([1, 2, 3, 4][:n], []) for n in range(4)] == [1, 7, 3, 4]
    assert drafter.next([1, 2], [3]) == 4


def test_behind_a_wrong_choice_the_draft_goes_its_own_recorded_way():
    drafter = Recorded(trace())
    assert drafter.next([1], [7]) == 8
    assert drafter.next([1], [7, 8]) == 9


def test_where_nothing_was_recorded_nothing_is_drafted():
    drafter = Recorded(trace())
    assert drafter.next([1, 2, 3, 4], []) is None
    assert drafter.next([1], [7, 8, 9]) is None
    assert drafter.next([1], [6]) is None
    assert drafter.next([5], []) is None


def test_without_a_recording_the_text_itself_suggests():
    assert FromText([1, 2, 3, 1, 2], 100).next([], []) == 3
    assert FromText([1, 2, 3], 100).next([1], [2]) == 3


def test_nonsense_stays_inside_the_vocabulary():
    drafter = Nonsense(3, random.Random(1))
    assert {drafter.next([], []) for _ in range(50)} == {0, 1, 2}
