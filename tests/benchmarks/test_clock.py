"""What reading a CPU clock takes is in no figure of pieces that take hardly longer."""

import itertools
import time

import pytest

from benchmarks.choice_cost import best_us
from benchmarks.clock import reading_s

READING_NS, WORK_NS = 3000, 2000


class _Clock:
    """The process's CPU clock, which a reading moves on by 3 us."""

    now_ns = 0

    def process_time_ns(self) -> int:
        self.now_ns += READING_NS
        return self.now_ns

    def process_time(self) -> float:
        return self.process_time_ns() / 1e9

    def work(self, _number: int) -> None:
        self.now_ns += WORK_NS


@pytest.fixture
def clock(monkeypatch):
    made = _Clock()
    monkeypatch.setattr(time, "process_time", made.process_time)
    monkeypatch.setattr(time, "process_time_ns", made.process_time_ns)
    return made


def test_a_reading_takes_what_an_interval_with_nothing_in_it_shows(clock):
    ticks = itertools.count(0.0, 0.25)
    assert reading_s(lambda: next(ticks)) == 0.25
    assert reading_s(time.process_time) == pytest.approx(READING_NS / 1e9)


@pytest.mark.parametrize("num_calls", [1, 8])
def test_a_choice_takes_as_long_alone_in_a_run_as_with_others(clock, num_calls):
    assert best_us(clock.work, 0.0, num_calls) == pytest.approx(WORK_NS / 1e3)
