"""A whole pool, from its start to the drain of all that it started, with no Ray in sight."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx

from cloud_verifier.config import VerifierConfig
from outrider.pool import running
from outrider.pool.members import Member

LIMIT_S = 30


class Draining:
    """A replica that serves at once, and drains until it is let go."""

    number = 0

    def __init__(self):
        self.is_drained, self.is_let_go = asyncio.Event(), asyncio.Event()

    async def start(self):
        return Member(0, "10.0.0.1:40001", "here")

    async def over(self):
        await asyncio.Event().wait()

    async def drain(self):
        self.is_drained.set()
        await self.is_let_go.wait()

    def kill(self):
        pass


async def test_a_pool_that_drains_is_asked_on_and_names_nobody_until_all_is_over(monkeypatch):
    replica, stop, served = Draining(), asyncio.Event(), asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def on_ray(config, build):
        yield [replica]

    async def serve():
        async with running.serve(VerifierConfig(port=0, engine_pool="ray")) as (url, _):
            served.set_result(url)
            await stop.wait()

    monkeypatch.setattr(running, "replicas_on_ray", on_ray)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks, httpx.AsyncClient(trust_env=False) as client:
        tasks.create_task(serve())
        url = await served
        while (named := (await client.get(url)).json()["verifiers"]) == []:
            pass  # it is to start first
        assert [one["target"] for one in named] == ["10.0.0.1:40001"]
        stop.set()
        await replica.is_drained.wait()
        assert (await client.get(url)).json() == {"verifiers": []}
        assert (await client.get(url.replace("/v1/verifiers", "/health"))).status_code == 503
        replica.is_let_go.set()
