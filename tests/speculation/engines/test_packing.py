"""Index arrays of a pass."""

import pytest

from speculation.engines.packing import pack


def test_odd_counts_are_filled_by_repeats_behind_the_real_rows():
    packing = pack(((0, 3, 1, False), (2, 2, 2, False)), 3, 2)
    assert packing.pad_idx.tolist() == [[0, 1, 2, 2], [0, 0, 0, 0], [3, 4, 0, 0]]
    assert packing.query_seqlens.tolist() == [4, 0, 2]
    assert packing.unpad_idx.tolist() == [0, 1, 2, 8, 9]
    assert packing.out_idx.tolist() == [2, 3, 4]
    assert (packing.num_tokens, packing.num_logits) == (5, 3)


def test_without_a_multiple_rows_stay_as_they_are():
    packing = pack(((0, 1, 0, False),), 1, 1)
    assert packing.pad_idx.tolist() == [[0]]
    assert packing.query_seqlens.tolist() == [1]
    assert packing.out_idx.tolist() == []


def test_packed_rows_follow_the_order_of_the_shares():
    packing = pack(((1, 2, 1, False), (0, 1, 1, False)), 2, 2)
    assert packing.pad_idx.tolist() == [[2, 2], [0, 1]]
    assert packing.unpad_idx.tolist() == [2, 3, 0]
    assert packing.out_idx.tolist() == [1, 2]


def test_odd_numbers_of_tokens_and_of_wanted_rows_are_filled_up():
    packing = pack(((0, 3, 1, False), (2, 2, 2, False)), 3, 2, 2)
    assert packing.pad_idx.tolist() == [[0, 1, 2, 2], [0, 0, 0, 0], [3, 4, 0, 0]]
    assert packing.query_seqlens.tolist() == [4, 0, 2]
    assert packing.unpad_idx.tolist() == [0, 1, 2, 8, 9, 9]
    assert packing.out_idx.tolist() == [2, 3, 4, 4]
    assert (packing.num_tokens, packing.num_logits) == (5, 3)


def test_where_no_rows_are_wanted_none_are_filled_up():
    packing = pack(((0, 1, 0, False),), 1, 2, 2)
    assert (packing.unpad_idx.tolist(), packing.out_idx.tolist()) == ([0, 0], [])


@pytest.mark.parametrize(("wanted", "multiple", "rows"), [(0, 1, [2]), (0, 2, [2, 2]), (1, 1, [2]), (2, 1, [1, 2])])
def test_where_the_head_needs_a_row_the_last_one_is_there_though_nobody_wants_it(wanted, multiple, rows):
    packing = pack(((0, 3, wanted, False),), 1, 2, multiple, 1)
    assert packing.out_idx.tolist() == rows
    assert (packing.num_logits, packing.num_rows) == (wanted, len(rows))
