"""The networks by name, and that the shaper does what their figures say, in process and on a virtual clock."""

import dataclasses
import statistics

import pytest

from benchmarks.pacing_in_process import delays_s, ends, loaded_delays_s, probe_s, rates_bytes_per_s, weighing
from benchmarks.published_radio import GAPS_S, MEDIANS_MS, gaps_s
from speculation.errors import ConfigurationError
from speculation.shaping import figures, profiles, virtual_time
from speculation.shaping.energy import LTE_POWER
from speculation.shaping.network import NetworkProfile
from speculation.shaping.outages import Outage

PRESETS = {
    "devtools": "fast-4g slow-3g slow-4g",
    "lighthouse": "desktop-dense-4g mobile-regular-3g mobile-slow-4g",
    "wpt": "2g 3g 3g-fast 3g-slow cable dial dsl edge fios",
    "android": "edge evdo gprs gsm hscsd hsdpa lte umts",
    "apple": "3g dsl edge lte very-bad wifi",
    "comcast": "3g dialup dsl-good dsl-poor edge gprs satellite starlink wifi",
    "mahimahi": "att-lte-driving tmobile-lte tmobile-umts verizon-evdo verizon-lte",
}
CELLS = {"5g-mmwave", "5g-nsa-low-tmobile", "5g-nsa-low-verizon", "5g-sa-low", "lte-tmobile", "lte-verizon"}
TYPICAL = {"5g-nsa-low", "lte", "none", "satellite", "train", "wifi"}
NONE = profiles.network("none")
FIGURE = '[{name}]\nvalue = {value}\nunit = "{unit}"\nsource = "a test"\ndate = "2024"\n'


def network_text(**more: tuple[float, str]) -> str:
    rates = {f"{way}.rate": (1, "Mbit/s") for way in ("uplink", "downlink")}
    times = {f"{way}.{what}": (5, "ms") for way in ("uplink", "downlink") for what in ("delay", "jitter")}
    given = rates | times | {"overhead": (0, "bytes")} | {name.replace("__", "."): figure for name, figure in more.items()}
    tables = (FIGURE.format(name=name, value=value, unit=unit) for name, (value, unit) in given.items())
    return 'title = "A test"\n' + "".join(tables)


def load(text: str) -> NetworkProfile:
    return figures.load(NetworkProfile, "test", text, "test.toml")


def percentile(values, share):
    return statistics.quantiles(values, n=100)[round(100 * share) - 1]


def test_every_network_of_the_tools_people_know_exists_by_name():
    presets = {f"{tool}-{name}" for tool, names in PRESETS.items() for name in names.split()}
    assert set(profiles.networks()) == presets | CELLS | TYPICAL


@pytest.mark.parametrize("name", ["5g-nsa-low", "lte", "wifi", "none"])
def test_the_first_profiles_have_no_figure_of_time_that_they_had_not(name):
    assert len([figure for figure in profiles.network(name).figures if not figure.startswith("energy.")]) == 7
    assert not profiles.network(name).sleeps
    assert not profiles.network(name).has_outages


def test_optional_figures_become_a_radio_losses_outages_and_a_queue():
    network = load(
        network_text(
            uplink__loss=(0.01, "share"),
            uplink__queue=(0.05, "MB"),
            downlink__rate_variation=(0.5, "share"),
            outage__between=(60, "s"),
            outage__lasting=(5, "s"),
            radio__idle__after=(10, "s"),
            radio__idle__cycle=(1280, "ms"),
            radio__idle__promotion=(260, "ms"),
        )
    )
    assert (network.uplink.loss, network.downlink.loss) == (0.01, 0.0)
    assert network.uplink.queue_bytes == 50_000
    assert network.uplink.retransmission_s == pytest.approx(0.210)
    assert [(s.after_s, s.cycle_s, s.promotion_s) for s in network.sleeps] == [(10.0, 1.28, 0.26)]
    assert network.has_outages


@pytest.mark.parametrize(
    ("figure", "rule"),
    [
        ({"uplink__loss": (1.2, "share")}, r"test.toml:\d+: uplink.loss is 1.2: a share is at most 1"),
        (
            {"uplink__loss": (1.0, "share")},
            "test.toml: loss is a share from 0 on and below 1, not 1: nothing at all is an outage",
        ),
        ({"uplink__queue": (-5, "bytes")}, r"test.toml:\d+: uplink.queue is -5: it cannot be negative"),
        ({"outage__between": (60, "s")}, "both a mean time between them and a mean length, or neither"),
        ({"radio__idle__after": (0, "s")}, "radio.idle.after is 0: it must be more"),
        ({"radio__idle__after": (10, "kbit/s")}, "radio.idle.after is a time, but kbit/s measures a rate"),
        ({"radio__doze__after": (10, "s")}, "unknown figure 'radio.doze.after'; known: .*radio.idle.after"),
        ({"uplink__rate": (-1, "Mbit/s")}, "uplink.rate is -125000: it cannot be negative"),
        ({"uplink__rate_variation": (2, "share")}, "a share is at most 1"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_with_the_line_and_the_rule(figure, rule):
    with pytest.raises(ConfigurationError, match=rule):
        load(network_text(**figure))


@pytest.mark.parametrize("name", sorted(MEDIANS_MS))
def test_the_radio_answers_as_late_after_each_gap_as_was_measured(name):
    for gap, published_ms in zip(GAPS_S, MEDIANS_MS[name], strict=True):
        round_trips_s = virtual_time.run(probe_s(profiles.network(name), gaps_s(name, gap, 500), seed=1))
        assert statistics.median(round_trips_s) * 1000 == pytest.approx(published_ms, rel=0.15), gap


@pytest.mark.parametrize("name", ["lte", "5g-nsa-low", "wpt-3g", "android-edge", "devtools-slow-3g"])
@pytest.mark.parametrize("is_uplink", [True, False])
def test_delays_on_an_idle_link_have_the_percentiles_that_are_set(name, is_uplink):
    profile = profiles.network(name)
    direction = profile.uplink if is_uplink else profile.downlink
    found = virtual_time.run(delays_s(profile, 2.0, 700, is_uplink))
    sending_s = min(found) - min(max(direction.delay_s - direction.jitter_s, 0), min(found))
    for share in (0.5, 0.9):
        expected_s = direction.delay_s + direction.jitter_s * (2 * share - 1)
        assert percentile(found, share) - sending_s == pytest.approx(expected_s, rel=0.05)


@pytest.mark.parametrize("name", ["5g-nsa-low", "wpt-3g", "devtools-slow-3g"])
@pytest.mark.parametrize("is_uplink", [True, False])
def test_delays_on_a_half_loaded_link_have_the_percentiles_that_are_set(name, is_uplink):
    profile = weighing(profiles.network(name), 1500)
    direction = profile.uplink if is_uplink else profile.downlink
    sending_s = 1500 / direction.rate_bytes_per_s
    found = virtual_time.run(loaded_delays_s(profile, 2 * sending_s, 300, is_uplink))
    for share in (0.5, 0.9):
        assert percentile(found, share) == pytest.approx(direction.delay_s + sending_s, rel=0.05)


@pytest.mark.parametrize("name", ["lte", "5g-nsa-low", "wpt-3g", "mahimahi-verizon-lte"])
def test_a_loaded_link_carries_the_rate_that_is_set(name):
    profile = dataclasses.replace(profiles.network(name), downlink_rate_bytes_per_s=1e5, overhead_bytes=1400)
    if profile.downlink_rate_variation:  # its mean is that of the whole trace
        (mean,) = virtual_time.run(rates_bytes_per_s(profile, 1, 59.0, is_uplink=False))
        assert mean == pytest.approx(1e5, rel=0.05)
        return
    rates = virtual_time.run(rates_bytes_per_s(profile, 10, 1.0, is_uplink=False))
    for share in (0.5, 0.9):
        assert percentile(rates, share) == pytest.approx(1e5, rel=0.05)


def test_a_cold_connection_waits_for_a_radio_that_sleeps():
    async def main():
        async with ends(profiles.network("lte-verizon")) as stream:
            return stream.cloud.arrived.empty()

    async def connected_at_s():
        from benchmarks.pacing_in_process import now_s

        async with ends(dataclasses.replace(NONE, name="idle", idle_after_s=5.0, idle_promotion_s=0.25)):
            return now_s()

    assert virtual_time.run(main())
    assert virtual_time.run(connected_at_s()) == 0.25


def test_an_outage_of_a_plan_holds_messages_until_its_end():
    profile = dataclasses.replace(NONE, name="tunnel", outages=(Outage(5.0, 8.0),), uplink_delay_s=0.25)
    assert virtual_time.run(delays_s(profile, 5.5, 1, is_uplink=True)) == [2.25]


def test_a_bounded_queue_makes_the_sender_wait_and_an_unbounded_one_does_not():
    from benchmarks.pacing_in_process import draft, now_s

    async def sent_at_s(profile):
        async with ends(profile) as stream:
            for number in range(2, 12):
                await stream.phone.send(draft(number))
            return now_s()

    free = dataclasses.replace(NONE, name="slow", uplink_rate_bytes_per_s=1000, overhead_bytes=100)
    bounded = dataclasses.replace(free, uplink_queue_bytes=300)
    began_s = virtual_time.run(sent_at_s(free))
    assert virtual_time.run(sent_at_s(bounded)) > began_s + 0.7


def test_a_radio_draws_what_its_network_says_and_all_of_it_or_nothing():
    assert profiles.network("lte").power == LTE_POWER
    assert profiles.network("wifi").power is None
    with pytest.raises(ConfigurationError, match=r"energy\.active.* all together or not at all"):
        dataclasses.replace(profiles.network("lte"), radio_tail_w=None)
