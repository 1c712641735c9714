"""A slope, and how far it can be trusted."""

import numpy as np
import pytest

from benchmarks.slope import slope_of

MINUTES = np.arange(240) / 12


def test_a_straight_line_has_its_slope_and_no_doubt():
    slope = slope_of(MINUTES, 3.0 * MINUTES + 7.0, 12)
    assert slope.value == pytest.approx(3.0)
    assert slope.margin == pytest.approx(0.0, abs=1e-9)
    assert not slope.holds_zero


def test_without_lags_the_margin_is_whites():
    """By hand: offsets -1 0 1, slope 1/2, residuals 1/6 -1/3 1/6, so a variance of (2/36) / 4."""
    slope = slope_of([0, 1, 2], [0, 0, 1], 0)
    assert slope.value == pytest.approx(0.5)
    assert slope.margin == pytest.approx(1.96 * (2 / 36) ** 0.5 / 2)


def test_one_lag_weighs_neighbours_by_half():
    """By hand: offsets -3 -1 1 3 halves, slope 0.4, scores -0.3 0.35 -0.35 0.3 ... whose neighbours' products count once."""
    x, y = [0, 1, 2, 3], [0, 1, 0, 2]
    offsets = np.array(x) - 1.5
    slope = float(offsets @ y) / 5
    scores = offsets * (np.array(y) - 0.75 - slope * offsets)
    variance = scores @ scores + 2 * 0.5 * (scores[1:] @ scores[:-1])
    assert slope_of(x, y, 1).margin == pytest.approx(1.96 * variance**0.5 / 5)


def random_walks_margin(num_lags):
    noise = np.random.default_rng(1).normal(size=240)
    slow = np.convolve(noise, np.ones(24) / 24, "same")
    return slope_of(MINUTES, slow, num_lags).margin


def test_noise_that_lasts_widens_the_interval():
    assert random_walks_margin(24) > 2 * random_walks_margin(0)


def test_noise_alone_is_seldom_taken_for_growth():
    found = [slope_of(MINUTES, np.random.default_rng(seed).normal(size=240), 24).holds_zero for seed in range(100)]
    assert 85 <= sum(found) <= 100


@pytest.mark.parametrize("x", [[0, 1], [2, 2, 2]])
def test_too_little_to_tell_a_slope_is_refused(x):
    with pytest.raises(ValueError, match="three samples"):
        slope_of(x, x, 1)
