import math
import statistics

import pytest

from speculation.errors import ConfigurationError
from speculation.shaping.pacing import Direction, Pipe


def test_a_message_takes_its_size_over_the_rate_and_the_delay():
    assert Pipe(Direction(1000, 0.25), 0).release_at(2.0, 500) == 2.75


def test_sending_waits_for_the_message_before_and_delays_overlap():
    pipe = Pipe(Direction(1000, 1.0), 0)
    assert [pipe.release_at(0.0, 500), pipe.release_at(0.0, 500), pipe.release_at(0.25, 500)] == [1.5, 2.0, 2.5]


def test_a_pipe_that_was_idle_starts_at_once():
    pipe = Pipe(Direction(1000, 0.0), 0)
    pipe.release_at(0.0, 1000)
    assert pipe.release_at(5.0, 1000) == 6.0


def test_nothing_overtakes_whatever_the_jitter():
    pipe = Pipe(Direction(math.inf, 1.0, 1.0), seed=3)
    releases = [pipe.release_at(0.001 * number, 1) for number in range(1000)]
    assert releases == sorted(releases)
    assert max(releases) <= 3.0


def test_jitter_spreads_evenly_around_the_delay():
    pipe = Pipe(Direction(math.inf, 0.050, 0.010), seed=1)
    delays = [pipe.release_at(float(second), 100) - second for second in range(4000)]
    deciles = statistics.quantiles(delays, n=10)
    assert deciles[4] == pytest.approx(0.050, rel=0.05)
    assert deciles[8] == pytest.approx(0.058, rel=0.05)
    assert min(delays) >= 0.040
    assert max(delays) <= 0.060


def test_the_same_seed_replays_the_same_delays_and_another_does_not():
    def delays(seed: int) -> list[float]:
        pipe = Pipe(Direction(1000, 1.0, 0.5), seed)
        return [pipe.release_at(float(second), 10) for second in range(10)]

    assert delays(7) == delays(7)
    assert delays(7) != delays(8)


def test_a_pipe_without_limits_releases_at_once():
    assert Pipe(Direction(math.inf, 0.0), 0).release_at(4.0, 10**9) == 4.0


@pytest.mark.parametrize("direction", [(0.0, 0.1, 0.0), (-1.0, 0.1, 0.0), (1.0, -0.1, 0.0), (1.0, 0.1, 0.2), (1.0, 0.1, -0.1)])
def test_a_direction_that_cannot_be_is_refused(direction):
    with pytest.raises(ConfigurationError):
        Direction(*direction)
