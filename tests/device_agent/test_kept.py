from __future__ import annotations

import asyncio
import contextlib

import pytest

from device_agent.kept import KeptStreams
from speculation.errors import SessionNotFoundError
from speculation.shaping import virtual_time
from speculation.tenants import NOBODY, Tenant
from tests.device_agent.doubles import DraftEngine, agent_of, request


def run(work):
    return virtual_time.run(work)


@contextlib.asynccontextmanager
async def keeping(window_s=60.0, max_ended=16, step_s=0.0):
    """Begins answers of ten tokens that are kept."""
    async with agent_of(None, DraftEngine(step_s=step_s), max_streams=100) as running:
        kept = KeptStreams(window_s, max_ended)

        async def begin(tenant=NOBODY):
            stream = await running.start(request(mode="device", max_tokens=10))
            kept.keep(stream, tenant)
            return stream

        yield kept, begin


async def ended(stream):
    while await stream.take():
        pass
    await asyncio.sleep(0)


def test_an_answer_is_kept_while_it_runs_and_for_the_window_behind_its_end():
    async def work():
        async with keeping(window_s=60.0, step_s=10.0) as (kept, begin):
            stream = await begin()
            await asyncio.sleep(99)
            assert kept.find(stream.session_id) is stream
            assert kept.num_running == 1
            await asyncio.sleep(100 + 59 - 99)
            assert kept.find(stream.session_id) is stream
            assert kept.num_running == 0
            await asyncio.sleep(2)
            with pytest.raises(SessionNotFoundError, match="60 s"):
                kept.find(stream.session_id)
            assert len(kept) == 0

    run(work())


def test_nobody_finds_what_another_tenant_began_or_hears_that_it_is_there():
    async def work():
        async with keeping() as (kept, begin):
            stream = await begin(Tenant("alice"))
            assert kept.find(stream.session_id, Tenant("alice")) is stream
            for stranger in (Tenant("bob"), NOBODY):
                with pytest.raises(SessionNotFoundError) as there:
                    kept.find(stream.session_id, stranger)
                with pytest.raises(SessionNotFoundError) as nowhere:
                    kept.find("nowhere", stranger)
                assert str(there.value) == str(nowhere.value).replace("nowhere", stream.session_id)

    run(work())


def test_of_those_that_have_ended_the_last_few_are_kept(caplog):
    async def work():
        async with keeping(max_ended=2) as (kept, begin):
            streams = [await begin() for _ in range(4)]
            assert len({stream.session_id for stream in streams}) == 4
            for stream in streams:
                await ended(stream)
            assert len(kept) == 2
            for stream in streams[2:]:
                assert kept.find(stream.session_id) is stream
            await asyncio.sleep(61)
            assert len(kept) == 0
            assert not caplog.records, "each is forgotten once"

    run(work())


def test_those_that_run_do_not_count():
    async def work():
        async with keeping(max_ended=0, step_s=1.0) as (kept, begin):
            stream = await begin()
            await asyncio.sleep(5)
            assert kept.find(stream.session_id) is stream
            await ended(stream)
            assert len(kept) == 0

    run(work())


def test_an_unknown_session_is_told_by_name_and_cut_short():
    with pytest.raises(SessionNotFoundError, match=f"'{'x' * 64}'"):
        KeptStreams(60.0, 16).find("x" * 1000)
