"""The soak's pure parts: what devices are told to do, what is left open, and what fails a run."""

import asyncio
import contextlib
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from benchmarks import soak_report
from benchmarks.processes.malloc import given_out_bytes
from benchmarks.soak_behaviour import Behaviour, End, away_s, draw, is_allowed
from benchmarks.soak_relay import relay_to
from benchmarks.soak_run import Outcome, Setting
from benchmarks.soak_samples import FDS_SPARE, Sample, left_open, memory_kib, settled, slope_a_minute

SETTING = Setting(seconds=60.0, devices=4, slots=2, max_queued=1, max_kept=1, interval_s=5.0, seed=0)
START = Sample(0.0, 1000, 900, 10, 5, 0, 0, 0, 0, 0, 0, 0, 7, 100, 500, 0)
DEVICES = {"texts": 3, "same_texts": 3, "parts": 2, "same_parts": 2, "refusals": 1, "first_ms": [5.0, 7.0], "problems": []}
ENDS = [[Behaviour.FINISH.value, End.FINISHED.value, 3], [Behaviour.VANISH.value, End.CUT.value, 2]]


def outcome(end=START, **devices):
    samples = [replace(START, at_s=5.0 * index, uss_kib=900 + index) for index in range(12)]
    return Outcome(SETTING, START, samples, end, {**DEVICES, "ends": ENDS} | devices)


def courses(count=2000):
    return [draw(0, number, index, (16, 16)) for number in range(20) for index in range(count // 20)]


def test_a_course_follows_from_its_seed_alone():
    assert draw(1, 2, 3, (16, 16)) == draw(1, 2, 3, (16, 16))
    assert len({draw(seed, 2, 3, (16, 16)).pause_s for seed in range(9)}) == 9


def test_every_behaviour_comes_and_a_quarter_is_sampled():
    drawn = courses()
    counts = Counter(course.behaviour for course in drawn)
    assert set(counts) == set(Behaviour)
    assert min(counts.values()) > 100
    assert 0.2 < sum(course.is_sampled for course in drawn) / len(drawn) < 0.3
    assert 0.08 < sum(not course.has_drafts for course in drawn) / len(drawn) < 0.17


def test_a_turn_comes_before_the_text_is_over():
    for length in (1, 19, 192):
        assert all(0 <= course.turn(length) < course.max_tokens(length) <= length for course in courses(200))


def test_half_of_the_devices_stay_away_in_every_second_minute():
    assert [away_s(device, 4, 70.0) for device in range(4)] == [0.0, 0.0, 50.0, 50.0]
    assert [away_s(device, 4, 130.0) for device in range(4)] == [0.0] * 4


def test_only_who_asked_for_another_end_may_have_one():
    assert is_allowed(Behaviour.CANCEL, End.CANCELLED)
    assert not is_allowed(Behaviour.FINISH, End.CANCELLED)
    assert all(is_allowed(behaviour, End.FINISHED) and is_allowed(behaviour, End.REFUSED) for behaviour in Behaviour)
    assert not any(is_allowed(behaviour, end) for behaviour in Behaviour for end in (End.NONE, End.BROKEN))


def test_memory_is_read_from_the_kernels_words():
    rollup = "55d0-7ffe ---p 0 00:00 0 [rollup]\nRss:   2048 kB\nPrivate_Clean:  4 kB\nPrivate_Dirty:  1000 kB\n"
    assert memory_kib(rollup) == {"Rss": 2048, "Private_Clean": 4, "Private_Dirty": 1000}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sessions": 1}, "1 sessions"),
        ({"running": 1}, "with a seat"),
        ({"waiting": 2}, "2 sessions that wait"),
        ({"caches": 3, "kept": 2}, "1 caches that are not kept"),
        ({"tasks": 8}, "8 tasks, not 7"),
        ({"fds": 10 + FDS_SPARE + 1}, "files and sockets"),
    ],
)
def test_what_is_left_open_is_told(change, told):
    (found,) = left_open(START, replace(START, **change))
    assert told in found


def test_kept_caches_and_a_few_files_are_not_left_open():
    assert left_open(START, replace(START, caches=2, kept=2, fds=10 + FDS_SPARE, uss_kib=5000)) == []


def test_growth_is_judged_behind_the_warm_up_alone():
    samples = [replace(START, at_s=60.0 * index, uss_kib=2 * index) for index in range(30)]
    samples[3] = replace(samples[3], uss_kib=10**6)
    assert settled(samples) == samples[10:]
    assert slope_a_minute(samples, "uss_kib", 5.0).value == pytest.approx(2.0)


def test_a_sound_run_has_no_faults():
    assert soak_report.faults(outcome()) == []


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (outcome(same_texts=2), "1 finished texts differ"),
        (outcome(same_parts=0), "2 unfinished texts"),
        (outcome(ends=[*ENDS, [Behaviour.SLOW.value, End.NONE.value, 1]]), "1 ended with no end: a device that reads slowly"),
        (outcome(end=replace(START, sessions=1)), "left open: 1 sessions"),
        (outcome(problems=["7-1 broke"]), "7-1 broke"),
    ],
)
def test_what_must_not_be_fails_the_run(run, told):
    (fault,) = soak_report.faults(run)
    assert told in fault


def test_the_tables_count_every_session_and_judge_growth_only_where_asked():
    ends, figures, growth = soak_report.grids(outcome(), judges_growth=True)
    assert ends.rows[-1] == ["all", "3", "0", "0", "2", "0", "0", "0"]
    assert ["finished texts; of them plain decoding's", "3; 3"] in [list(row) for row in figures.rows]
    assert growth.rows[0][1].startswith("+12.0 (")
    assert len(soak_report.grids(outcome(), judges_growth=False)) == 2


@asynccontextmanager
async def behind_a_relay():
    """The address to call, the relay, and the streams that a server behind it gets."""
    heard = asyncio.Queue()
    server = await asyncio.start_server(lambda *streams: heard.put_nowait(streams), "127.0.0.1", 0)
    async with server, relay_to(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as (address, relay):
        far_reader, far_writer = await heard.get()
        yield address.split(":"), relay, far_reader, far_writer
        far_writer.close()


async def is_over(reader):
    with contextlib.suppress(ConnectionResetError):
        return await reader.read() == b""
    return True


async def test_who_calls_a_relay_that_is_in_use_finds_nobody_and_disturbs_nobody():
    """Ports are given away again, and a channel that lost its connection calls the one that it knew."""
    async with behind_a_relay() as (address, _, far_reader, far_writer):
        reader, writer = await asyncio.open_connection(*address)
        stranger, strange_writer = await asyncio.open_connection(*address)
        strange_writer.write(b"whom did I reach?")
        assert await is_over(stranger)
        writer.write(b"one")
        assert await far_reader.readexactly(3) == b"one"
        far_writer.write(b"two")
        assert await reader.readexactly(3) == b"two"
        strange_writer.close()
        writer.close()


async def test_a_relay_carries_both_ways_in_order():
    async with behind_a_relay() as (address, _, far_reader, far_writer):
        far_writer.write(b"before")
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.readexactly(6) == b"before"
        for word in (b"one", b"two"):
            writer.write(word)
            assert await far_reader.readexactly(3) == word
            far_writer.write(word)
            assert await reader.readexactly(3) == word
        writer.close()
        assert await is_over(far_reader)


async def test_a_relay_that_is_cut_is_gone_at_both_ends():
    async with behind_a_relay() as (address, relay, far_reader, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"hello")
        assert await far_reader.readexactly(5) == b"hello"
        relay.cut()
        assert await is_over(reader)
        assert await is_over(far_reader)
        writer.close()


@pytest.mark.skipif(not given_out_bytes(), reason="no glibc, which tells what it has given out")
@pytest.mark.parametrize("size", [1 << 26, 1000], ids=["mapped apart", "of an arena"])
def test_what_malloc_has_given_out_grows_by_what_is_taken_and_falls_by_what_is_given_back(size):
    before, count = given_out_bytes(), (1 << 26) // size
    taken = [bytearray(size) for _ in range(count)]
    assert given_out_bytes() - before == pytest.approx(count * size, rel=0.1)
    del taken
    assert given_out_bytes() - before < count * size * 0.1


async def test_a_relay_that_nobody_called_leaves_no_connection():
    async with behind_a_relay() as (_, relay, far_reader, _):
        relay.cut()
        assert await is_over(far_reader)
