"""Clients that stand for other machines take none of the server's processors from it, and afterwards are as they were."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

from benchmarks.processes.yielding import yielding

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has SCHED_IDLE")
TELL = "import os; print(os.sched_getscheduler(0))"


def policy_of_a_child() -> int:
    async def ask() -> bytes:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", TELL, stdout=asyncio.subprocess.PIPE)
        return (await process.communicate())[0]

    return json.loads(asyncio.run(ask()))


def test_what_a_block_starts_computes_where_nobody_else_wants_to():
    before = os.sched_getscheduler(0)
    with yielding():
        assert policy_of_a_child() == os.SCHED_IDLE
    assert os.sched_getscheduler(0) == before
    assert policy_of_a_child() == before


def test_it_ends_with_an_error_too():
    before = os.sched_getscheduler(0)
    with pytest.raises(KeyError), yielding():
        raise KeyError
    assert os.sched_getscheduler(0) == before
