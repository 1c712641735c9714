"""One session as the pass loop sees it: whether it can run, what it would run, and what it asks of a pass."""

import asyncio
import math
import threading
from types import SimpleNamespace

import pytest

from cloud_verifier.live import LiveSession
from speculation.errors import EngineError
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Draft, Node
from speculation.tenants import NOBODY, Account
from tests.cloud_verifier.doubles import open_message


def begun(**changes):
    return LiveSession(open_message(**changes), 40, 64, 8, lambda live: None, lambda: None, Account(NOBODY), threading.RLock())


async def test_a_session_whose_part_of_a_pass_failed_runs_in_no_other_before_it_is_told():
    live = begun()
    assert live.can_run
    live.fail(SimpleNamespace(cache=None, error=EngineError("no such row")))
    assert not live.can_run
    live.tell()
    with pytest.raises(EngineError, match="no such row"):
        await live.next()


async def test_the_drafts_of_a_device_go_before_those_of_the_verifier():
    live = begun()
    live.take_drafts((7, 8))
    assert (live.plan(8).nodes, live.plan(8).token_ids) == ((), (7, 8))
    live.receive(Draft((Node(1, 0, 5, 3),), 3))
    assert (live.plan(8).nodes, live.plan(8).token_ids) == ((1,), (5,))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
async def test_a_claim_holds_what_the_device_asked_for(temperature):
    live = begun(parameters=SamplingParameters(temperature), priority=3, deadline_ms=60_000)
    claim, now_s = live.claim(live.plan(8)), asyncio.get_running_loop().time()
    assert (claim.priority, claim.is_sampled) == (3, temperature > 0)
    assert claim.deadline_s == pytest.approx(now_s + 60, abs=5)
    live.close()
    other = begun()
    assert other.claim(other.plan(8)).deadline_s == math.inf
