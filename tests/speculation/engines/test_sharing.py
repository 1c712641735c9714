"""How a process that serves shares its processors: looked at from a process of its own, for it changes the whole one."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has policies for who waits")

NUM_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1

CODE = """
import asyncio, os, threading
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.engines.sharing import computes, share_processor

POLICIES = {os.SCHED_OTHER: "other", os.SCHED_BATCH: "batch", os.SCHED_IDLE: "idle"}

def told(*_):
    return POLICIES[os.sched_getscheduler(0)]

def told_by_a_compute_thread():
    computes()
    return told()

async def main():
    runner = EngineRunner.on_own_thread(RandomEngine(16, 8, seed=0), "test")
    found = [told(), await runner.run(told), await asyncio.to_thread(told), await asyncio.to_thread(told_by_a_compute_thread)]
    runner.shutdown()
    print(*found)

BEGIN
asyncio.run(main())
"""


def policies(begin):
    """Of the loop, the engine's thread, a thread that waits, and one that computes."""
    code = CODE.replace("BEGIN", begin)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.split()


@pytest.mark.skipif(NUM_PROCESSORS < 2, reason="with one processor nothing changes")
def test_threads_that_wait_interrupt_nobody_and_those_that_compute_are_as_they_were():
    assert policies("share_processor()") == ["batch", "other", "batch", "other"]


def test_a_library_changes_nothing():
    assert policies("") == ["other"] * 4


def test_a_policy_that_was_chosen_for_the_process_stays():
    assert policies("os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0)); share_processor()") == ["idle"] * 4


def test_with_one_processor_nothing_changes():
    one = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); share_processor()"
    assert policies(one) == ["other"] * 4


def test_where_it_is_forbidden_all_goes_on():
    forbidden = "def forbid(*_): raise PermissionError\nos.sched_setscheduler = forbid\nshare_processor()"
    assert policies(forbidden) == ["other"] * 4
