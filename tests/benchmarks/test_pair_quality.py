"""What the figures of the pair make of choices along texts."""

import numpy as np
import pytest

from benchmarks.pair_quality import Compared, figures_of, standard_error


def along(*hits):
    is_at = np.array([[hit == 0, hit == 1, hit == 2, hit == 3] for hit in hits])
    return Compared(is_at, np.zeros(len(hits), bool), np.full(len(hits), 0.75))


def test_agreement_is_over_all_tokens_and_covered_misses_over_the_misses():
    figures = figures_of([along(0, 0, 1), along(2, 4)], 1, is_greedy=False)
    assert figures["agreement"] == pytest.approx(2 / 5)
    assert figures["misses covered by the second choice"] == pytest.approx(1 / 3)
    assert figures["by the second to fourth"] == pytest.approx(2 / 3)
    assert figures["optimum of any rule"] == 0.75
    assert "standard error over seeds" not in figures


def test_the_standard_error_is_that_of_the_seeds_means():
    """Two texts a seed, of lengths that differ: seed means 1/2 and 1."""
    hit = np.array([True, False, False, True, True, True])
    assert standard_error(hit, [1, 3, 1, 1], 2) == pytest.approx(np.std([0.5, 1.0], ddof=1) / np.sqrt(2))
    assert figures_of([along(0, 1), along(0, 0)], 2, is_greedy=True)["standard error over seeds"] == pytest.approx(0.25)
