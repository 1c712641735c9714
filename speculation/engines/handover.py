"""Python's interpreter, handed over to a thread that was given a job, until that computes without it.

Left to itself a loop that has given a job goes on with what else there is to do, and keeps the interpreter for a switch
interval and longer, while the thread stands whose forward would need no interpreter at all. So the loop waits the little that
the thread needs to get there, and does the rest beside the forward.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

LONGEST_S = 0.002
"""Nobody waits longer than this: not every job computes, and some need long before they do."""


class _OfThread(threading.local):
    """What a thread has to do once it computes. In the class, for to look for what is not there takes six times as long."""

    act: Callable[[], object] | None = None


_of_thread = _OfThread()


class HandOver:
    """Of one job: who gives it waits, the thread that runs it takes it along until it computes, or is over."""

    def __init__(self) -> None:
        self._held = threading.Lock()
        self._held.acquire()

    def wait(self) -> None:
        """Until the job computes or is over, and no longer than ``LONGEST_S``."""
        self._held.acquire(timeout=LONGEST_S)

    def take(self) -> None:
        """This thread runs the job from here on."""
        when_computing(self.let_go)

    @property
    def is_over(self) -> bool:
        """Whether it was let go, and nobody waited for that yet."""
        return not self._held.locked()

    def let_go(self) -> None:
        self._held.release()


def when_computing(act: Callable[[], object]) -> None:
    """Have it done by this thread once that computes, or its job is over: before others are told of something, say, who would
    want the interpreter for that."""
    _of_thread.act = act


def computing() -> None:
    """For engines: from here on this thread needs no interpreter for a while. Cheap, and without effect where nobody waits."""
    act = _of_thread.act
    if act is not None:
        _of_thread.act = None
        act()
