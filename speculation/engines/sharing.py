"""How the threads of a process that serves share the interpreter and the processors: who computes comes first.

Commands ask for it; a library never does, for it changes the process that it is in.
"""

from __future__ import annotations

import contextlib
import os
import sys

SWITCH_INTERVAL_S = 0.0005

_is_processor_shared = False


def share_interpreter() -> None:
    """Let threads that wait for the interpreter have it soon.

    By Python's own 5 ms the engine's thread waited that long to begin a pass while the loop told the last one's verdicts, which
    it can as well do beside the forward.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def share_processor() -> None:
    """Let threads that compute keep their processor while this one, and those that it starts from now on, wake up.

    Linux gives a thread that wakes up the processor of one that runs, a forward as well as any other; but what a message brings
    can wait for a processor that is free, or for its turn. So these threads are ``SCHED_BATCH`` (sched(7)): as much of the
    processors is theirs as before, and they interrupt nobody. Without effect where this process has one processor (drafts would
    be read behind the forward that they came in, and so too late for the next), where another policy was chosen for it, or
    there is none to choose.
    """
    global _is_processor_shared
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER or num_processors() < 2:
        return
    with contextlib.suppress(OSError):  # a container may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        _is_processor_shared = True


def num_processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def computes() -> None:
    """For a thread that computes, as it begins: it, and those that it starts, are none of those that wait."""
    if _is_processor_shared:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
