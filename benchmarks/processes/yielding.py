"""Clients beside the server that they measure: they stand for other machines, and take none of its processors from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def yielding() -> Iterator[None]:
    """While the block runs this thread, and those that it starts, compute where nobody else wants to.

    ``SCHED_IDLE`` of Linux (sched(7)); no other system has it, and there nothing changes. Clients compute as much in all as
    without, and that is told apart.
    """
    if not hasattr(os, "SCHED_IDLE"):
        yield
        return
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))
