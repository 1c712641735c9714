"""What the CPU clock takes is told as nobody's, however long a reading of it takes."""

import asyncio
import time

import numpy as np
import pytest

from benchmarks.clock import reading_s
from benchmarks.one_stream import TimedRunner, without_clock
from speculation.engines.base import Chunk
from speculation.engines.random import RandomEngine

FORWARD_S, CHOICE_S, FOLLOW_S, LOOP_S = 1.0, 0.25, 0.125, 0.5
JOBS = 3


class _Clock:
    """A thread's clock that only moves when it is told to, and by ``reading_s`` at each reading, half of it before and half
    behind the moment that it tells."""

    def __init__(self, reading_s: float) -> None:
        self.now_s, self.half_s = 0.0, reading_s / 2

    def work(self, seconds: float) -> None:
        self.now_s += seconds

    def thread_time(self) -> float:
        self.now_s += self.half_s
        told_s = self.now_s
        self.now_s += self.half_s
        return told_s


class _Slow(RandomEngine):
    """Its forwards take a second of the clock."""

    clock: _Clock

    def extend(self, chunks):
        self.clock.work(FORWARD_S)
        return super().extend(chunks)


def _spent(clock, monkeypatch):
    """The total of three jobs, two of which follow another, and what the runner read of it."""
    monkeypatch.setattr(time, "thread_time", clock.thread_time)
    engine = _Slow(8, 64, 1)
    engine.clock = clock
    runner = TimedRunner(engine, "test")
    cache = engine.open()
    left = list(range(JOBS - 1))

    def job(timed):
        timed.extend([Chunk(cache, [1], 1)])
        clock.work(CHOICE_S)

    def follow(_result):
        clock.work(FOLLOW_S)
        return job if left and left.pop() is not None else None

    before, began_s = runner.read(), clock.now_s
    asyncio.run(runner.run(job, follow=follow))
    clock.work(LOOP_S)
    total_s, read = clock.now_s - began_s, runner.read() - before
    runner.shutdown()
    return total_s, read


@pytest.mark.parametrize("taken_s", [0.0, 0.5, 10.0])
def test_each_part_is_told_without_the_readings_that_lie_in_it(taken_s, monkeypatch):
    clock = _Clock(taken_s)
    total_s, read = _spent(clock, monkeypatch)
    assert reading_s() == pytest.approx(taken_s)
    expected = (JOBS * FORWARD_S, JOBS * (CHOICE_S + FOLLOW_S), LOOP_S)
    assert without_clock(total_s, read, taken_s) == pytest.approx(expected)
    assert read[2:].tolist() == [JOBS, 2 * JOBS]


def test_six_readings_a_pass_that_follows_another_are_what_is_taken_off(monkeypatch):
    total_s, read = _spent(_Clock(1.0), monkeypatch)
    left_s = np.sum(without_clock(total_s, read, 1.0))
    assert total_s - left_s == pytest.approx(6 * JOBS)
