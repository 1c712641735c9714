"""What it takes to read a thread's CPU clock: a call of the system, and of several microseconds on some machines.

Whoever times pieces of some ten microseconds takes that off each of them, else the table shows the clock as well.
"""

from __future__ import annotations

import time
from statistics import median

NUM_READINGS = 400


def reading_s() -> float:
    """CPU seconds that an interval with nothing in it seems to take, now: the middle of many. It changes with the machine's
    load, so it is measured where it is needed."""
    found = []
    for _ in range(NUM_READINGS):
        began_s = time.thread_time()
        found.append(time.thread_time() - began_s)
    return median(found)
