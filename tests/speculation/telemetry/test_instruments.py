"""Instruments: what Prometheus' own parser reads of them, and the library's histogram as the measure of ours."""

import prometheus_client
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from speculation.telemetry.instruments import TOKEN_S, Instruments, Renamed
from tests.support.figures import Figures


@settings(max_examples=25)
@given(st.lists(st.tuples(st.one_of(st.floats(0, 5), st.sampled_from(TOKEN_S)), st.integers(1, 3)), max_size=20))
def test_a_histogram_is_that_of_the_library(observations):
    registry, ours = CollectorRegistry(), Instruments("x_")
    theirs = prometheus_client.Histogram("x_wait_seconds", "A wait.", registry=registry, buckets=TOKEN_S)
    histogram = ours.histogram("wait_seconds", "A wait.", TOKEN_S)
    for seconds, count in observations:
        histogram.observe(seconds, count)
        for _ in range(count):
            theirs.observe(seconds)
    told, meant = Figures.of(ours.registry), Figures.of(registry)
    for le in (*map(str, TOKEN_S), "+Inf"):
        assert told.get("x_wait_seconds_bucket", le=le) == meant.get("x_wait_seconds_bucket", le=le)
    assert told["x_wait_seconds_count"] == meant["x_wait_seconds_count"]
    assert abs(told["x_wait_seconds_sum"] - meant["x_wait_seconds_sum"]) < 1e-9


def test_a_figure_that_means_nothing_yet_has_a_type_and_no_value():
    make = Instruments("x_")
    make.gauge("rtt_seconds", "A round trip.", lambda: None)
    told = Figures.of(make.registry)
    assert told.type_of("x_rtt_seconds") == "gauge"
    assert not told.has("x_rtt_seconds")


def test_under_another_name_values_that_become_one_are_added_up_and_unknown_ones_left_out():
    make = Instruments("x_")
    ends = make.counter("ended", "Ends.", lambda: {"stop": 1, "late": 2, "gone": 4, "odd": 8}, "reason")
    make.also([Renamed(ends, "y:success", "finished_reason", {"stop": "stop", "late": "abort", "gone": "abort"})], {"m": "n"})
    told = Figures.of(make.registry)
    assert told.get("y:success_total", m="n", finished_reason="stop") == 1
    assert told.get("y:success_total", m="n", finished_reason="abort") == 6
    assert len(told.families["y:success"].samples) == 2


def test_what_a_label_holds_cannot_break_out_of_it():
    make = Instruments("x_")
    make.counter("by", "By name.", lambda: {'a"} 1\nx_by{n="': 3}, "n")
    assert Figures.of(make.registry).get("x_by_total", n='a"} 1\nx_by{n="') == 3
