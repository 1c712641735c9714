import pytest

from outrider.planning.token_speed import LISTED, speeds


def test_the_talks_figures_come_out():
    """7B in INT8 on LPDDR5T-9600 at 100, 65 and 33 % of its bandwidth, as the talk has them."""
    seven = next(row for row in speeds().rows if (row.model, row.number_type) == ("7B", "int8"))
    assert [round(speed, 2) for speed in seven.tokens_per_s.values()] == [10.97, 7.13, 3.62]


def test_weights_are_the_talks_table():
    gigabytes = {(row.model, row.number_type): row.weight_bytes / 1e9 for row in speeds().rows}
    assert [gigabytes[size, "int8"] for size in LISTED] == [70, 13, 7, 3.25, 1.8]
    assert [gigabytes[size, "int4"] for size in LISTED] == [35, 6.5, 3.5, 1.625, 0.9]


def test_streams_share_the_bandwidth():
    alone, shared = speeds(), speeds(num_streams=4)
    for one, four in zip(alone.rows, shared.rows, strict=True):
        assert four.tokens_per_s[1.0] == pytest.approx(one.tokens_per_s[1.0] / 4)


def test_readers_want_a_third_more_tokens_than_words():
    assert speeds().reading_tokens_per_s == pytest.approx({"silent reading": 238 / 60 * 4 / 3, "skimming": 1000 / 60 * 4 / 3})
