import dataclasses

import pytest

from speculation.errors import InvalidRequestError
from speculation.shaping import profiles
from speculation.shaping.overrides import RANGES, cloud_with, network_with, phone_with

LTE, NOTHING = profiles.network("lte"), profiles.network("none")
PHONE, CLOUD = profiles.phone("dimensity-9300"), profiles.cloud("h100x4")


def test_what_is_not_given_is_the_profiles_own():
    other_kinds = {"bandwidth_gb_s": 10.0}
    assert network_with(LTE, other_kinds) is LTE
    assert phone_with(PHONE, {"rtt_ms": 10.0}) is PHONE
    assert cloud_with(CLOUD, other_kinds) is CLOUD


def test_a_round_trip_keeps_the_shares_of_its_two_ways_and_no_more_jitter_than_fits():
    far, near = network_with(LTE, {"rtt_ms": 1000.0}), network_with(LTE, {"rtt_ms": 1.0})
    assert far.round_trip_s == pytest.approx(1)
    assert far.uplink_delay_s / far.downlink_delay_s == pytest.approx(LTE.uplink_delay_s / LTE.downlink_delay_s)
    assert near.round_trip_s == pytest.approx(0.001)
    assert near.uplink_jitter_s <= near.uplink_delay_s
    assert network_with(NOTHING, {"rtt_ms": 60.0}).uplink_delay_s == 0.03


def test_rate_and_loss_are_those_of_both_ways_and_a_rate_stands_still():
    network = network_with(profiles.network("mahimahi-tmobile-lte"), {"rate_mbps": 8.0, "loss_percent": 2.0})
    for direction in (network.uplink, network.downlink):
        assert (direction.rate_bytes_per_s, direction.loss) == (1e6, 0.02)
        assert (direction.trace, direction.rate_variation) == (None, 0)


def test_a_bandwidth_is_the_data_sheets_of_which_the_profile_reaches_its_share():
    phone = phone_with(PHONE, {"bandwidth_gb_s": 100.0})
    assert phone.machine.bandwidth_bytes_per_s == 100e9 * PHONE.bandwidth_utilisation
    cloud = cloud_with(CLOUD, {"cloud_bandwidth_gb_s": 1000.0})
    assert cloud.machine.bandwidth_bytes_per_s == CLOUD.num_devices * 1000e9 * CLOUD.bandwidth_utilisation


def test_what_was_changed_claims_no_profiles_name():
    assert phone_with(PHONE, {"bandwidth_gb_s": 100.0}).name == "dimensity-9300 (bandwidth_gb_s 100)"
    assert network_with(LTE, {"loss_percent": 1.5, "rtt_ms": 200.0}).name == "lte (rtt_ms 200, loss_percent 1.5)"
    assert network_with(NOTHING, {"rtt_ms": 0.0}).name != "none"


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_every_range_make_a_profile_and_what_is_beyond_is_refused_with_the_range(name):
    allowed = RANGES[name]
    for value in (allowed.least, allowed.most):
        allowed.check(name, value)
        for profile in (NOTHING, LTE, profiles.network("train")):
            network_with(profile, {name: value})
        phone_with(PHONE, {name: value})
        cloud_with(CLOUD, {name: value})
    for value in (allowed.least - 1, allowed.most + 1, float("nan")):
        with pytest.raises(InvalidRequestError, match=f"{name} must be from {allowed.least:g} to"):
            allowed.check(name, value)


def test_a_profile_is_changed_in_nothing_else():
    changed = phone_with(PHONE, {"bandwidth_gb_s": 100.0})
    same = dataclasses.replace(changed, name=PHONE.name, bandwidth_bytes_per_s=PHONE.bandwidth_bytes_per_s)
    assert same == PHONE
