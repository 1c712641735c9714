"""One replica, as whoever runs it sees it; and a pool of two without Ray, with an agent in front."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from types import SimpleNamespace

import pytest

from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel
from cloud_verifier.ports import parse_ports, turned
from device_agent.build import connector_of
from outrider.pool import on_ray
from outrider.pool.actor import ReplicaActor, free_port
from outrider.pool.head import listening
from outrider.pool.members import Member, Members, following
from speculation.engines.self_test import SelfTest
from speculation.errors import ConfigurationError, EngineError, LinkError, PackageError
from tests.device_agent.doubles import IDENTITY, DraftEngine, SlowEngine, agent_of, plain_decoding, request
from tests.device_agent.doubles import config as agent_config

LIMIT_S = 30


def full_model():
    return FullModel(SlowEngine(0.01), IDENTITY, SelfTest(True, "f" * 16, 0.0, ()))


def pool_config(**changes):
    return VerifierConfig(**{"port": 0, "engine_pool": "ray", "drain_grace_s": 0.0} | changes)


class InProcess:
    """A replica in this process: what Ray does for it, a task group does."""

    def __init__(self, number, tasks):
        self.number = number
        self._tasks = tasks

    async def start(self):
        self._actor = ReplicaActor(0, pool_config(), "127.0.0.1", full_model)
        self._serving = self._tasks.create_task(self._actor.serve(1))
        return Member(self.number, await self._actor.target(1), "here")

    async def over(self):
        await asyncio.shield(self._serving)

    async def drain(self):
        await self._actor.drain()
        await self.over()

    def kill(self):
        pass


async def test_an_agent_finds_the_replicas_by_the_heads_list_and_goes_on_where_one_ends():
    async with asyncio.timeout(LIMIT_S), contextlib.AsyncExitStack() as stack:
        tasks, members = await stack.enter_async_context(asyncio.TaskGroup()), Members()
        replicas = [InProcess(number, tasks) for number in range(2)]
        await stack.enter_async_context(following(members, replicas, 10))
        url = await stack.enter_async_context(listening(members, pool_config()))
        while len(members.current) < 2:  # noqa: ASYNC110 (the state of the code under test)
            await asyncio.sleep(0.01)
        agent = await stack.enter_async_context(agent_of(connector_of(agent_config(verifier=url)), DraftEngine(0.7)))
        num_links, actors = 0, [replica._actor for replica in replicas]
        async for event in agent.stream(request()):
            num_links += event.name == "state"
            if event.name in ("commit", "correct") and num_links == 1:
                num_links += 10
                await next(actor for actor in actors if actor.num_sessions).drain()
        assert list(event.token_ids) == plain_decoding(SlowEngine(0.0))
        assert event.verified_count == len(event.token_ids)
        assert num_links == 12


async def test_a_replica_that_cannot_start_says_why_each_time():
    def fail():
        raise PackageError("the models are damaged")

    actor = ReplicaActor(0, pool_config(), "10.0.0.1", fail)
    for attempt in (1, 2):
        await actor.serve(attempt)
        with pytest.raises(PackageError):
            await actor.target(attempt)


async def test_a_replica_that_breaks_while_it_serves_raises_what_broke_it(monkeypatch):
    @contextlib.asynccontextmanager
    async def broken(config, full_model):
        yield SimpleNamespace(port=40001)
        raise EngineError("the thread of the engine died")

    monkeypatch.setattr("cloud_verifier.server.serve", broken)
    actor = ReplicaActor(0, pool_config(), "10.0.0.1", full_model)
    await actor.drain()
    with pytest.raises(EngineError):
        await actor.serve(1)
    assert await actor.target(1) == "127.0.0.1:40001"


async def test_a_replica_that_broke_serves_anew_and_whoever_joined_it_hears_of_its_end(monkeypatch):
    breaks = asyncio.Event()

    @contextlib.asynccontextmanager
    async def broken(config, full_model):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(break_down())
            yield SimpleNamespace(port=40001, pairs=SimpleNamespace(num_sessions=1))

    async def break_down():
        await breaks.wait()
        raise EngineError("the thread of the engine died")

    async def end_of(serving):
        try:
            await serving
        except Exception as error:
            return error

    actor = ReplicaActor(0, pool_config(), "10.0.0.1", full_model)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        with monkeypatch.context() as patched:
            patched.setattr("cloud_verifier.server.serve", broken)
            first = tasks.create_task(end_of(actor.serve(1)))
            await actor.target(1)
            second = tasks.create_task(end_of(actor.serve(2)))
            assert await actor.target(2) == "127.0.0.1:40001"
            breaks.set()
            assert isinstance(await first, ExceptionGroup)
            assert isinstance(await second, LinkError)
        assert actor.num_sessions == 0
        tasks.create_task(actor.serve(3))
        assert await actor.target(3) != "127.0.0.1:40001"
        await actor.drain()


@pytest.mark.parametrize(("host", "shown"), [("0.0.0.0", "10.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::", "10.0.0.1")])
async def test_a_replica_that_is_bound_everywhere_is_called_by_its_machines_address(host, shown):
    actor = ReplicaActor(0, pool_config(host=host, insecure=True), "10.0.0.1", full_model)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(actor.target(1))
        await asyncio.sleep(0)
        tasks.create_task(actor.serve(1))
        assert (await asked).rpartition(":")[0] == shown
        await actor.drain()


async def test_a_replica_that_serves_already_is_joined_and_not_started_twice():
    actor = ReplicaActor(0, pool_config(), "10.0.0.1", full_model)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(actor.serve(1))
        target = await actor.target(1)
        second = tasks.create_task(actor.serve(2))
        assert await actor.target(2) == target
        await actor.drain()
        await first
        await second


@pytest.mark.parametrize("fails", [False, True])
async def test_a_replica_that_still_loads_its_model_is_joined_and_loads_no_second_one(fails):
    """As where the head lost sight of it meanwhile, and asks again."""
    loads, goes_on = [], threading.Event()

    def load():
        loads.append(len(loads))
        assert goes_on.wait(LIMIT_S)
        if fails and len(loads) == 1:
            raise PackageError("the models are damaged")
        return full_model()

    actor = ReplicaActor(0, pool_config(), "10.0.0.1", load)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        for attempt in (1, 2):
            tasks.create_task(actor.serve(attempt))
        while not loads:  # noqa: ASYNC110 (the state of the code under test)
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert loads == [0]
        goes_on.set()
        if fails:
            with pytest.raises(PackageError):
                await actor.target(1)
        else:
            assert await actor.target(1) == await actor.target(2)
        await actor.target(2)
        assert loads == [0, 1][: 1 + fails]
        await actor.drain()


def test_the_first_port_of_a_range_that_is_free_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", [port, 0]) == 0
        with pytest.raises(ConfigurationError, match="replica_ports: none of them is free"):
            free_port("127.0.0.1", [port])


def test_ports_are_any_one_or_a_range():
    assert [list(parse_ports(text)) for text in ("0", "50060", "50060-50062")] == [[0], [50060], [50060, 50061, 50062]]


def test_replicas_of_one_machine_begin_with_other_ports():
    assert [turned(range(5, 8), number) for number in range(4)] == [[5, 6, 7], [6, 7, 5], [7, 5, 6], [5, 6, 7]]


@pytest.mark.parametrize("text", ["", "a", "-5", "5-", "9-8", "0-5", "65536", "5-70000", "5,6", "1-2-3"])
def test_what_is_no_port_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"replica_ports: 0 for any, a port, or a range"):
        VerifierConfig(engine_pool="ray", replica_ports=text)


def test_details_of_a_pool_without_a_pool_are_refused():
    with pytest.raises(ConfigurationError, match="replicas, ray_address: without engine_pool"):
        VerifierConfig(replicas=3, ray_address="auto")


def test_replicas_that_are_all_on_this_machine_are_refused_one_port_for_the_figures_of_each():
    with pytest.raises(ConfigurationError, match="metrics_port: 2 replicas on this machine cannot all listen on 9464"):
        VerifierConfig(engine_pool="ray", replicas=2, metrics_port=9464)
    for works in ({"replicas": 1}, {"replicas": 2, "ray_address": "auto"}):
        assert VerifierConfig(engine_pool="ray", metrics_port=9464, **works).metrics_port == 9464
    assert VerifierConfig(engine_pool="ray", replicas=2, metrics_port=0).metrics_port == 0


async def test_without_the_extra_a_pool_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with pytest.raises(ConfigurationError, match=r'pip install "outrider\[ray\]"'):
        on_ray.require_ray()


def test_what_a_replica_on_ray_has_loaded_is_out_of_the_garbage_collectors_sight(monkeypatch):
    done = []
    monkeypatch.setattr(on_ray, "freeze_heap", lambda: done.append("frozen"))
    model = full_model()
    assert on_ray._loaded(lambda: done.append("loaded") or model) is model
    assert done == ["loaded", "frozen"]
