"""A lane of a proxied connection and its toxics: pure, so on whatever times a test likes."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.errors import InvalidRequestError
from speculation.shaping.lane import MAX_UNDER_WAY_BYTES, MIN_QUEUE_BYTES, Lane, wire_bytes
from speculation.shaping.pacing import Direction, Pipe
from speculation.shaping.stages import Kind
from speculation.shaping.toxics import toxic_from, updated


def toxic(kind, name="", toxicity=1.0, **attributes):
    return toxic_from({"name": name, "type": kind, "toxicity": toxicity, "attributes": attributes})


def lane(*toxics, pipe=None, now_s=0.0, seed=""):
    made = Lane(pipe, seed, has_headers=False)
    made.set_toxics(toxics, now_s)
    return made


def taken(lane, until_s=1e9):
    """Everything until then: when it came, what it was."""
    return [(item.due_s, item.kind, bytes(item.data)) for item in lane.take(until_s)]


def test_a_lane_without_anything_is_clear_and_hands_on_at_once():
    clear = lane()
    assert clear.is_clear
    clear.offer(1.0, b"abc")
    assert clear.next_due_s == 1.0
    assert taken(clear) == [(1.0, Kind.DATA, b"abc")]


def test_a_network_paces_what_it_carries():
    paced = lane(pipe=Pipe(Direction(1000, 0.5), 0))
    paced.offer(0.0, b"x" * 100)
    assert not paced.is_clear
    assert [time_s for time_s, _, _ in taken(paced)] == [pytest.approx(0.6)]


def test_packets_weigh_their_headers():
    assert wire_bytes(1) == 53
    assert wire_bytes(1448) == 1500
    assert wire_bytes(1449) == 1449 + 104


def test_an_end_travels_as_a_packet_does():
    ended = Lane(Pipe(Direction(100, 0.5), 0))
    ended.end(1.0)
    assert taken(ended) == [(1.0 + (wire_bytes(0)) / 100 + 0.5, Kind.END, b"")]
    assert wire_bytes(0) == 52


def test_a_toxic_that_nobody_should_get_does_nothing():
    spared = lane(toxic("latency", latency=250, toxicity=0.0))
    spared.offer(0.0, b"a")
    assert taken(spared) == [(0.0, Kind.DATA, b"a")]


def test_a_toxic_that_is_changed_remembers_what_passed_it_and_another_of_its_name_does_not():
    def left(first, *others):
        limited = lane(first)
        limited.offer(0.0, bytes(60))
        limited.take(0.0)
        for other in others:
            limited.set_toxics([other], 1.0)
        limited.offer(1.0, bytes(200))
        return sum(len(data) for _, _, data in taken(limited))

    limit = toxic("limit_data", name="one", bytes=100)
    assert left(limit, toxic("limit_data", name="one", bytes=150)) == 90
    assert left(limit, toxic("limit_data", name="other", bytes=150)) == 150
    slow = toxic("bandwidth", name="one", rate=100)
    assert left(slow, limit) == left(limit, slow, limit) == 100


def test_of_two_toxics_that_cut_the_sooner_one_does():
    late, soon = toxic("reset_peer", name="late", timeout=5000), toxic("reset_peer", name="soon", timeout=1000)
    for toxics in ((late, soon), (soon, late)):
        assert taken(lane(*toxics)) == [(1.0, Kind.RESET, b"")]


def test_latency_comes_on_top_and_overlaps():
    late = lane(toxic("latency", latency=250))
    late.offer(0.0, b"a")
    late.offer(0.1, b"b")
    assert taken(late) == [(0.25, Kind.DATA, b"a"), (0.35, Kind.DATA, b"b")]


def test_bandwidth_is_in_thousands_of_bytes_a_second_and_comes_in_pieces():
    slow = lane(toxic("bandwidth", rate=100))
    slow.offer(0.0, bytes(100_000))
    times = [time_s for time_s, _, _ in taken(slow)]
    assert times[-1] == pytest.approx(1.0)
    assert times[0] == pytest.approx(0.01024)


def test_a_rate_of_0_is_no_limit():
    free = lane(toxic("bandwidth", rate=0))
    free.offer(2.0, bytes(100_000))
    assert {time_s for time_s, _, _ in taken(free)} == {2.0}


def test_a_slicer_cuts_into_pieces_of_about_the_size_and_spaces_them():
    sliced = lane(toxic("slicer", average_size=100, size_variation=20, delay=500))
    sliced.offer(0.0, bytes(10_000))
    parts = taken(sliced)
    assert all(80 <= len(data) <= 120 for _, _, data in parts[:-1])
    assert [time_s for time_s, _, _ in parts] == pytest.approx([0.0005 * n for n in range(len(parts))])


def test_slow_close_delays_the_end_and_nothing_else():
    slow = lane(toxic("slow_close", delay=700))
    slow.offer(0.0, b"a")
    slow.end(0.0)
    assert taken(slow) == [(0.0, Kind.DATA, b"a"), (0.7, Kind.END, b"")]


def test_limit_data_counts_over_changes_of_other_toxics():
    limited = lane(limit := toxic("limit_data", bytes=10))
    limited.offer(0.0, b"123456")
    limited.set_toxics([limit, toxic("latency", latency=100)], 0.0)  # what is under way is counted once
    limited.offer(0.0, b"7890ab")
    assert [(kind, data) for _, kind, data in taken(limited)][:3] == [
        (Kind.DATA, b"123456"),
        (Kind.DATA, b"7890"),
        (Kind.CLOSE, b""),
    ]


def test_timeout_drops_everything_and_closes_in_its_time_whatever_else_changes():
    silent = lane(cut := toxic("timeout", timeout=1000))
    silent.offer(0.1, b"x")
    silent.set_toxics([cut, toxic("latency", latency=5)], 0.5)
    assert taken(silent, 0.9) == []
    assert taken(silent, 1.0) == [(1.0, Kind.CLOSE, b"")]


def test_a_silent_connection_that_is_left_is_over():
    silent = lane(toxic("timeout"))
    silent.offer(0.0, b"x")
    silent.end(1.0)
    assert taken(silent) == [(1.0, Kind.END, b"")]


def test_a_timeout_of_0_never_closes_and_a_reset_of_0_is_at_once():
    assert lane(toxic("timeout")).next_due_s == float("inf")
    assert taken(lane(toxic("reset_peer"), now_s=3.0)) == [(3.0, Kind.RESET, b"")]


def test_what_is_under_way_leaves_when_its_toxic_goes():
    late = lane(toxic("latency", latency=60_000))
    late.offer(0.0, b"a")
    late.end(0.0)
    late.set_toxics([], 1.0)
    assert not late.is_clear  # else bytes that come now would overtake
    assert taken(late, 1.0) == [(1.0, Kind.DATA, b"a"), (1.0, Kind.END, b"")]
    assert late.is_clear


def test_a_lane_is_full_at_a_bound_that_follows_the_rate_and_never_beyond_the_largest():
    assert lane()._limit_bytes == MAX_UNDER_WAY_BYTES
    assert lane(toxic("bandwidth", rate=10))._limit_bytes == MIN_QUEUE_BYTES
    assert lane(toxic("slicer", average_size=10, delay=10_000))._limit_bytes == MIN_QUEUE_BYTES
    assert lane(toxic("slicer", average_size=10))._limit_bytes == MAX_UNDER_WAY_BYTES
    assert lane(pipe=Pipe(Direction(1e9, 10.0), 0))._limit_bytes == MAX_UNDER_WAY_BYTES
    assert lane(pipe=Pipe(Direction(1e5, 0.5, queue_bytes=3000), 0))._limit_bytes == 53_000
    full = lane(toxic("bandwidth", rate=10))
    full.offer(0.0, bytes(MIN_QUEUE_BYTES))
    assert full.is_full
    full.take(1.0)
    assert not full.is_full


def test_a_toxic_has_a_name_of_its_type_and_stream_and_zeros_where_nothing_is_said():
    made = toxic_from({"type": "latency", "stream": "upstream"})
    assert made.to_json() == {
        "name": "latency_upstream",
        "type": "latency",
        "stream": "upstream",
        "toxicity": 1.0,
        "attributes": {"latency": 0, "jitter": 0},
    }
    assert updated(made, {"attributes": {"jitter": 4}, "toxicity": 0.5}).to_json()["attributes"] == {"latency": 0, "jitter": 4}


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({}, "invalid toxic type None; known: latency, bandwidth"),
        ({"type": ["latency"]}, "invalid toxic type"),
        ({"type": "latency", "stream": 3}, "stream was invalid"),
        ({"type": "latency", "name": 3}, "the name of a toxic is a string"),
        ({"type": "latency", "attributes": {"latency": 1.5}}, "latency is a whole number"),
        ({"type": "latency", "attributes": {"latency": True}}, "latency is a whole number"),
        ({"type": "latency", "attributes": {"latency": 2**31}}, "latency is a whole number from 0 to 2147483647"),
        ({"type": "latency", "toxicity": "1"}, "toxicity is a chance"),
        ({"type": "latency", "toxicity": float("nan")}, "toxicity is a chance"),
        ({"type": "slicer", "attributes": {"average_size": 5, "size_variation": 5}}, "must be less than average_size"),
    ],
)
def test_a_toxic_that_cannot_be_is_refused_with_the_rule(fields, rule):
    with pytest.raises(InvalidRequestError, match=rule):
        toxic_from(fields)


HARMLESS = [
    toxic("latency", latency=40, jitter=60),
    toxic("bandwidth", rate=50),
    toxic("slicer", average_size=700, size_variation=300, delay=100),
    toxic("slow_close", delay=100),
]
steps = st.lists(
    st.tuples(
        st.floats(0, 0.3),
        st.one_of(st.integers(1, 4000), st.lists(st.sampled_from(HARMLESS), unique_by=lambda t: t.name, max_size=4)),
    ),
    max_size=25,
)


@given(steps, st.booleans(), st.integers(0, 5))
def test_whatever_toxics_come_and_go_bytes_are_conserved_in_order_and_the_day_can_be_replayed(steps, has_network, seed):
    def play() -> list[tuple[float, bytes]]:
        pipe = Pipe(Direction(1e5, 0.05, 0.02, loss=0.1), seed) if has_network else None
        carried, draw, now_s, sent, got = lane(pipe=pipe, seed=str(seed)), random.Random(seed), 0.0, b"", []
        for gap_s, what in steps:
            now_s += gap_s
            for item in carried.take(now_s):
                assert item.due_s <= now_s
                got.append((item.due_s, bytes(item.data)))
            if isinstance(what, int):
                sent += (data := draw.randbytes(what))
                carried.offer(now_s, data)
            else:
                carried.set_toxics(what, now_s)
            assert carried.num_bytes == len(sent) - sum(len(data) for _, data in got)
        carried.end(now_s)
        rest = carried.take(1e9)
        assert [item.kind for item in rest].count(Kind.END) == 1
        assert rest[-1].kind is Kind.END
        got += [(item.due_s, bytes(item.data)) for item in rest]
        assert b"".join(data for _, data in got) == sent
        assert [time_s for time_s, _ in got] == sorted(time_s for time_s, _ in got)
        return got

    assert play() == play()
