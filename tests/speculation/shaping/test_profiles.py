import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated

import pytest

from speculation.errors import ConfigurationError, UnknownNameError
from speculation.shaping import figures, profiles
from speculation.shaping.costs import Work, step_time_s
from speculation.shaping.figures import Figure, Key
from speculation.shaping.models import parse_model
from speculation.shaping.profiles import CloudProfile, NetworkProfile, PhoneProfile

EVERY_PROFILE = [
    *map(profiles.phone, profiles.phones()),
    *map(profiles.network, profiles.networks()),
    *map(profiles.cloud, profiles.clouds()),
]
FIGURE = 'value = 3\nunit = "{unit}"\nsource = "a test"\ndate = "2024"\n'


def cloud_text(**changes: str) -> str:
    units = {"bandwidth": "GB/s", "compute": "TFLOP/s", "memory": "GB", "pass_overhead": "ms"}
    shares = {"bandwidth_utilisation": "share", "compute_utilisation": "share"}
    tables = {name: FIGURE.format(unit=unit) for name, unit in units.items()}
    tables |= {name: FIGURE.format(unit=unit).replace("3", "0.5") for name, unit in shares.items()}
    tables |= changes
    return 'title = "A test"\n' + "".join(f"[{name}]\n{table}" for name, table in tables.items() if table)


def load_cloud(text: str) -> CloudProfile:
    return figures.load(CloudProfile, "test", text, "test.toml")


@pytest.mark.parametrize("profile", EVERY_PROFILE, ids=lambda p: f"{type(p).__name__}-{p.name}")
def test_every_figure_of_every_profile_has_a_source_and_a_date(profile):
    assert profile.title
    defaults = {field.name: field.default for field in dataclasses.fields(profile)}
    for attribute, key in figures.keys(type(profile)).items():
        if key.name not in profile.figures and defaults[attribute] is not dataclasses.MISSING:
            assert getattr(profile, attribute) == defaults[attribute]
            continue
        figure = profile.figures[key.name]
        assert figure.base_value == getattr(profile, attribute)
        assert figure.source
        assert figure.date


def test_a_file_may_leave_out_a_figure_whose_attribute_has_a_default_and_no_other():
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Shelf:
        name: str
        title: str
        width_bytes: Annotated[float, Key("width", "size")]
        depth_bytes: Annotated[float, Key("depth", "size", may_be_zero=True)] = 0.0
        figures: Mapping[str, Figure] = dataclasses.field(default_factory=dict)

    bare = 'title = "A test"\n[width]\n' + FIGURE.format(unit="MB")
    shelf = figures.load(Shelf, "s", bare, "s.toml")
    assert shelf.depth_bytes == 0.0
    assert shelf.figures.keys() == {"width"}
    assert figures.load(Shelf, "s", bare + "[depth]\n" + FIGURE.format(unit="MB"), "s.toml").depth_bytes == 3e6
    with pytest.raises(ConfigurationError, match="the figure 'width' is missing"):
        figures.load(Shelf, "s", 'title = "A test"\n', "s.toml")


def test_the_first_profiles_exist_by_name():
    assert profiles.phones() == (
        "apple-a17-pro",
        "apple-a18-pro",
        "apple-a19-pro",
        "apple-a19-pro-ane",
        "apple-a19-pro-litert",
        "dimensity-9300",
        "dimensity-9400",
        "none",
        "snapdragon-7-gen-3",
        "snapdragon-8-elite",
        "snapdragon-8-gen-3",
    )
    assert {"5g-nsa-low", "lte", "none", "wifi"} <= set(profiles.networks())
    assert {"mi300x", "none"} <= set(profiles.clouds())


def test_there_are_six_cloud_machines_each_with_a_price():
    machines = [profiles.cloud(name) for name in profiles.clouds() if name != profiles.UNSHAPED]
    assert len(machines) >= 6
    assert all(machine.usd_per_hour for machine in machines)


def test_several_devices_share_a_model_and_meet_twice_a_layer():
    one, two, model = profiles.cloud("h200"), profiles.cloud("h200x2"), parse_model("70B:fp16")
    assert two.machine.memory_bytes == 2 * one.machine.memory_bytes
    assert two.usd_per_hour == pytest.approx(2 * 3.99)
    alone_s, shared_s = (step_time_s(cloud.machine, model, [Work(100, 1)]) for cloud in (one, two))
    assert shared_s == pytest.approx(alone_s / 2 + 2 * model.layers * 8e-6)


def test_the_default_names_are_names_of_profiles():
    assert profiles.phone(profiles.DEFAULT_PHONE).memory_bytes == 16e9
    assert profiles.cloud(profiles.DEFAULT_CLOUD).memory_bytes == 192e9
    assert profiles.network(profiles.DEFAULT_NETWORK)


def test_the_demos_network_has_a_round_trip_of_60_ms_and_no_jitter():
    network = profiles.network(profiles.DEFAULT_NETWORK)
    assert network.round_trip_s == pytest.approx(0.060, abs=1e-15)
    assert network.uplink.jitter_s == network.downlink.jitter_s == 0
    assert network.uplink_rate_bytes_per_s == pytest.approx(14.56e6 / 8)


@pytest.mark.parametrize("load", [profiles.phone, profiles.network, profiles.cloud])
def test_an_unknown_name_is_refused_with_the_names_that_exist(load):
    with pytest.raises(UnknownNameError, match=r"unknown \w+ '../secrets'; known: .*none"):
        load("../secrets")


def test_the_helper_text_of_these_tests_is_a_good_profile():
    profile = load_cloud(cloud_text())
    assert (profile.bandwidth_bytes_per_s, profile.pass_overhead_s) == (3e9, 0.003)


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("bandwith", FIGURE.format(unit="GB/s"), r"test.toml:\d+: unknown figure 'bandwith'; known: all_reduce, bandwidth, "),
        ("memory", "", "the figure 'memory' is missing"),
        ("memory", 'value = 3\nsource = "x"\ndate = "2024"\n', r"test.toml:12: memory has no unit"),
        ("memory", FIGURE.format(unit="GB/s"), "memory is a size, but GB/s measures a rate"),
        ("memory", FIGURE.format(unit="GiB"), "unknown unit 'GiB'; known: bytes, MB, GB"),
        ("memory", FIGURE.format(unit="GB").replace("3", "-3"), "memory is -3e[+]09: it cannot be negative"),
        ("memory", FIGURE.format(unit="GB").replace("3", "0"), "memory is 0: it must be more"),
        ("memory", FIGURE.format(unit="GB").replace("3", '"3"'), "memory.value is no number"),
        ("pass_overhead", FIGURE.format(unit="ms").replace("3", "inf"), "pass_overhead is infinite: it must be less"),
        ("price", FIGURE.format(unit="USD/h").replace("3", "inf"), "price is infinite: it must be less"),
        ("memory", FIGURE.format(unit="GB").replace("3", "nan"), "value is not a number"),
        ("memory", FIGURE.format(unit="GB").replace("a test", " "), "source is empty"),
        ("memory", FIGURE.format(unit="GB").replace("2024", "last year"), "date 'last year' is not YYYY"),
        ("memory", FIGURE.format(unit="GB") + "note = 1\n", "memory has an unknown key 'note'"),
        ("bandwidth_utilisation", FIGURE.format(unit="share"), "a share is at most 1"),
    ],
)
def test_a_figure_that_breaks_a_rule_is_refused_with_the_rule(name, table, message):
    with pytest.raises(ConfigurationError, match=message):
        load_cloud(cloud_text(**{name: table}))


def test_a_file_that_is_no_profile_is_refused():
    with pytest.raises(ConfigurationError, match=r"test.toml: not TOML: .*line 2"):
        load_cloud('title = "A test"\n[memory\n')
    with pytest.raises(ConfigurationError, match="title is missing"):
        load_cloud(cloud_text().replace("title", "[heading]\nname"))
    with pytest.raises(ConfigurationError, match=r"test.toml:2: memory is a bare value"):
        load_cloud('title = "A test"\nmemory = 192\n')


def test_a_profile_made_in_code_is_held_to_the_same_rules():
    phone: PhoneProfile = profiles.phone("dimensity-9300")
    with pytest.raises(ConfigurationError, match=r"app_share is 1\.5"):
        dataclasses.replace(phone, app_share=1.5)
    network: NetworkProfile = profiles.network("lte")
    with pytest.raises(ConfigurationError, match="jitter"):
        dataclasses.replace(network, uplink_jitter_s=1.0)
    with pytest.raises(ConfigurationError, match=r"downlink\.delay is infinite"):
        dataclasses.replace(network, downlink_delay_s=math.inf)
