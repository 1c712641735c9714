import dataclasses
import itertools
import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.errors import ConfigurationError
from speculation.shaping import profiles
from speculation.shaping.outages import Outage, Outages
from speculation.shaping.pacing import Direction, Pipe
from speculation.shaping.radio import Radio, Sleep
from speculation.shaping.traces import Trace


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


def test_a_lost_packet_costs_a_retransmission_and_holds_up_what_is_behind_it():
    direction = Direction(1500, 0.5, loss=0.3, retransmission_s=0.25)
    pipe, plain = Pipe(direction, 3), Pipe(Direction(1500, 0.5), 3)
    pauses = [pipe.release_at(0.0, 1500) - plain.release_at(0.0, 1500) for _ in range(200)]
    grown = [later - earlier for earlier, later in itertools.pairwise([0.0, *pauses])]
    assert {round(pause, 6) for pause in grown} <= {0.25 * (2**n - 1) for n in range(8)}
    assert sum(pause > 0 for pause in grown) / 200 == pytest.approx(0.3, abs=0.07)


def test_packets_that_are_lost_together_are_sent_again_together():
    lost = [
        Pipe(Direction(math.inf, 0.0, loss=0.5, retransmission_s=0.25), seed).release_at(0.0, 15_000) for seed in range(300)
    ]
    assert sum(pause > 0 for pause in lost) / 300 > 0.99
    assert all(math.log2(pause / 0.25 + 1).is_integer() for pause in lost if pause < 120)


def test_loss_draws_nothing_from_the_jitter_so_that_a_day_with_it_is_the_same_day():
    jittery, lossy = (Pipe(Direction(1e6, 1.0, 0.5, loss=loss), 4) for loss in (0.0, 0.2))
    pairs = [(jittery.release_at(100.0 * n, 100), lossy.release_at(100.0 * n, 100)) for n in range(50)]
    assert sum(a == b for a, b in pairs) > 30


def test_a_packet_that_is_always_lost_is_given_up_as_often_as_linux_does_and_waits_no_longer_than_that():
    pipe = Pipe(Direction(math.inf, 0.0, loss=1 - 1e-12, retransmission_s=0.25), 0)
    pauses = [min(0.25 * 2**n, 120.0) for n in range(15)]
    assert pauses[-1] == 120.0
    assert pipe.release_at(0.0, 1) == pytest.approx(sum(pauses))


def test_a_pipe_that_takes_anothers_place_goes_on_in_its_chances():
    """Else a network that is set again and again would have the same luck each time."""

    def releases(changes_at):
        pipe = Pipe(Direction(1e6, 1.0, 0.5, loss=0.3), 4)
        found = []
        for second in range(0, 4000, 100):
            if second == changes_at:
                before, pipe = pipe, Pipe(pipe.direction, 4)
                pipe.follow(before, float(second))
            found.append(pipe.release_at(float(second), 3000))
        return found

    assert releases(2000) == releases(None)


def test_a_radio_is_awake_while_something_is_sent_however_long_that_takes():
    radio = Radio([Sleep(after_s=2.0, promotion_s=0.5)], 0)
    up = Pipe(Direction(100, 0.0), 0, radio=radio)
    assert up.release_at(0.0, 1000) == 10.5
    assert up.release_at(12.0, 1) == 12.01


def test_a_full_queue_makes_its_sender_wait_and_drops_nothing():
    pipe = Pipe(Direction(1000, 1.0, queue_bytes=1000), 0)
    assert pipe.room_at(0.0, 600) == 0.0
    pipe.release_at(0.0, 600)
    assert pipe.room_at(0.0, 400) == 0.0
    assert pipe.room_at(0.0, 600) == 0.6
    pipe.release_at(0.0, 400)
    assert pipe.room_at(0.0, 600) == 0.6
    assert pipe.room_at(0.0, 601) == 1.0
    assert pipe.room_at(0.7, 600) == 0.7


def test_a_message_larger_than_the_queue_goes_when_that_is_empty():
    pipe = Pipe(Direction(1000, 0.0, queue_bytes=100), 0)
    pipe.release_at(0.0, 80)
    assert pipe.room_at(0.0, 5000) == 0.08


def test_an_outage_stops_what_is_sent_and_what_is_under_way():
    pipe = Pipe(Direction(1000, 1.0), 0, outages=Outages((Outage(2.0, 5.0),)))
    assert pipe.release_at(0.0, 500) == 1.5
    assert pipe.release_at(1.25, 500) == 5.0  # sent at 1.75, due at 2.75
    assert pipe.release_at(1.75, 500) == 6.25  # half sent at 2.0, sent at 5.25
    assert pipe.held_until(3.0) == 5.0


def test_a_trace_replaces_the_rate():
    pipe = Pipe(Direction(1, 1.0, trace=Trace((500, 1000))), 0, origin_s=10.0)
    assert [pipe.release_at(10.0, 1500) for _ in range(3)] == [11.5, 12.0, 12.5]


def test_what_a_trace_offers_in_an_outage_is_nobodys():
    """As at a rate: what was being sent goes on at the end of the outage, instead of being there all at once."""
    outages = Outages((Outage(2.0, 5.0),))
    at_rate = Pipe(Direction(1500, 0.0), 0, outages=outages)
    traced = Pipe(Direction(1, 0.0, trace=Trace((1000,))), 0, outages=outages)
    for pipe in (at_rate, traced):
        assert [pipe.release_at(0.0, size) for size in (1500, 1500, 3000)] == [1.0, 5.0, 7.0]
    assert traced.release_at(10.5, 1500) == 11.0


def test_both_directions_keep_one_radio_awake():
    radio = Radio([Sleep(after_s=1.0, promotion_s=0.5)], 0)
    up = Pipe(Direction(math.inf, 0.0), 0, is_uplink=True, radio=radio)
    down = Pipe(Direction(math.inf, 0.0), 0, is_uplink=False, radio=radio)
    assert up.release_at(0.0, 1) == 0.5
    assert down.release_at(1.25, 1) == 1.25
    assert up.release_at(2.0, 1) == 2.0
    assert down.release_at(3.0, 1) == 3.5


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"loss": 1.0}, "loss is a share from 0 on and below 1"),
        ({"loss": -0.1}, "loss is a share"),
        ({"queue_bytes": 0.0}, "a queue has room"),
        ({"retransmission_s": 0.0}, "a retransmission takes more than 0 s"),
        ({"rate_variation": 1.5}, "its variation lies between 0 and 1"),
        ({"rate_variation": 0.1, "rate_bytes_per_s": 125e6 + 1}, "a rate that varies is 1 Gbit/s at most"),
    ],
)
def test_a_network_that_cannot_be_is_refused_with_the_rule(wrong, rule):
    with pytest.raises(ConfigurationError, match=rule):
        Direction(**{"rate_bytes_per_s": 1000.0, "delay_s": 0.1} | wrong)


class AsItWas:
    """The pacing when there was nothing but a rate, a delay and jitter."""

    def __init__(self, direction, seed):
        self.direction, self.random, self.free_s, self.last_s = direction, random.Random(seed), 0.0, 0.0

    def release_at(self, now_s, num_bytes):
        d = self.direction
        self.free_s = max(now_s, self.free_s) + num_bytes / d.rate_bytes_per_s
        jitter_s = self.random.uniform(-d.jitter_s, d.jitter_s) if d.jitter_s else 0.0
        self.last_s = max(self.free_s + d.delay_s + jitter_s, self.last_s)
        return self.last_s


@pytest.mark.parametrize("name", ["5g-nsa-low", "lte", "wifi", "none"])
def test_the_first_profiles_keep_their_times_bit_for_bit(name):
    profile, draw = profiles.network(name), random.Random(name)
    for pipe, direction, seed in zip(profile.pipes(3), (profile.uplink, profile.downlink), (6, 7), strict=True):
        before, now_s = AsItWas(direction, seed), 0.0
        for _ in range(500):
            now_s += draw.expovariate(20)
            size = draw.randrange(88, 5000)
            assert pipe.release_at(now_s, size) == before.release_at(now_s, size)


days = st.builds(
    Direction,
    st.floats(1e3, 1e9),
    st.floats(0.05, 0.5),
    st.floats(0.0, 0.05),
    loss=st.sampled_from([0.0, 0.02, 0.3]),
    queue_bytes=st.sampled_from([math.inf, 3000.0]),
).flatmap(
    lambda d: st.builds(
        dataclasses.replace, st.just(d), rate_variation=st.sampled_from([0.0, 0.5][: 1 + (d.rate_bytes_per_s < 1e6)])
    )
)


@given(
    days,
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20_000)), min_size=1, max_size=20),
    st.integers(0, 5),
    st.booleans(),
)
def test_on_any_day_nothing_overtakes_or_is_early_and_the_day_can_be_replayed(direction, steps, seed, has_more):
    def play() -> list[float]:
        radio = Radio([Sleep(0.5, 0.1, 0.2)], seed) if has_more else None
        outages = Outages(between_s=5.0, lasting_s=1.0, seed=seed) if has_more else None
        pipe, now_s, releases = Pipe(direction, seed, radio=radio, outages=outages), 0.0, []
        for gap_s, size in steps:
            now_s = pipe.room_at(now_s + gap_s, size)
            releases.append(pipe.release_at(now_s, size))
            assert releases[-1] >= now_s + direction.delay_s - direction.jitter_s
        return releases

    releases = play()
    assert releases == sorted(releases)
    assert releases == play()


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20_000)), min_size=1, max_size=20), st.integers(0, 5))
def test_whatever_holds_messages_back_none_is_earlier_than_on_a_good_day(steps, seed):
    good = Pipe(Direction(1e5, 0.1), seed)
    radio, outages = Radio([Sleep(0.5, 0.1, 0.2)], seed), Outages(between_s=5.0, lasting_s=1.0, seed=seed)
    bad = Pipe(Direction(1e5, 0.1, loss=0.2), seed, radio=radio, outages=outages)
    now_s = 0.0
    for gap_s, size in steps:
        now_s += gap_s
        assert bad.release_at(now_s, size) >= good.release_at(now_s, size) - 1e-9
