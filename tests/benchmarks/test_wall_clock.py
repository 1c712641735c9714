"""The intervals of the wall-clock benchmark: texts are what is drawn, and rounds only repeat them."""

import numpy as np
import pytest

from benchmarks.wall_clock import Case, Pair, interval, row

FIGURES = ("passes_per_token", "first_visible_ms")


def made(prompt, ratio):
    others = dict.fromkeys(FIGURES, 1.0)
    return Pair(prompt, {"tokens_per_s": 100 * ratio, **others}, {"tokens_per_s": 100.0, **others})


def rounds_of(ratios, num_rounds):
    return [made(prompt, ratio) for _ in range(num_rounds) for prompt, ratio in enumerate(ratios)]


def test_rounds_of_the_same_texts_make_no_interval_narrower():
    ratios = np.random.default_rng(3).uniform(1.0, 2.0, 16).tolist()
    assert interval(rounds_of(ratios, 8)) == pytest.approx(interval(rounds_of(ratios, 1)))
    low, high = interval(rounds_of(ratios, 8))
    assert low < np.median(ratios) < high


def test_the_interval_of_texts_that_all_come_as_fast_is_a_point():
    assert interval(rounds_of([1.25] * 4, 3)) == pytest.approx((1.25, 1.25))


def test_a_row_has_the_median_of_the_pairs_ratios_and_the_worst():
    found = row(Case("one each", "real draft", 0.0), rounds_of([0.5, 1.0, 3.0], 2))
    assert (found.ratio, found.worst_ratio) == (1.0, 0.5)
    assert (found.tokens_per_s, found.cloud_tokens_per_s) == (100.0, 100.0)
