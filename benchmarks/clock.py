"""What it takes to read a CPU clock, a thread's or the process's: a call of the system, of microseconds on some machines.

Whoever times pieces of some ten microseconds takes that off each of them, else the table shows the clock as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

NUM_READINGS = 400


def reading_s(clock: Callable[[], float] | None = None) -> float:
    """CPU seconds that an interval with nothing in it seems to take, now: the middle of many; by the thread's clock if no other
    is given. It changes with the machine's load, so it is measured where it is needed."""
    read, found = clock or time.thread_time, []
    for _ in range(NUM_READINGS):
        began_s = read()
        found.append(read() - began_s)
    return median(found)
