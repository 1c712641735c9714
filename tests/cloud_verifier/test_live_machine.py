"""A running verifier that is given another machine to play, and another patience."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import asynccontextmanager

import pytest

from cloud_verifier import server
from cloud_verifier.costs import LinearCosts, RooflineCosts
from cloud_verifier.emulation import LiveMachine, changeable
from cloud_verifier.engine import FullModel
from cloud_verifier.verification import Verifier
from speculation.engines.runner import EngineRunner
from speculation.errors import CapacityError, ConfigurationError
from speculation.links.memory import MemoryConnector
from speculation.protocol.messages import Draft, Node, Verdict
from speculation.shaping import profiles
from speculation.shaping.costs import Work
from speculation.shaping.engine import CloudCost, ShapedEngine
from speculation.shaping.models import parse_model
from tests.cloud_verifier.doubles import IDENTITY, SELF_TEST, WatchedEngine, settings, watched
from tests.cloud_verifier.sessions import opened
from tests.cloud_verifier.virtual import now_s, virtually

MODEL = parse_model("70B:fp16")
FAST, SLOW, NONE = profiles.cloud("b200"), profiles.cloud("mi300x"), profiles.cloud("none")
MEASURED = LinearCosts(1e-3)


@asynccontextmanager
async def running(cloud=FAST, costs=None, **changes):
    """A verifier on the virtual clock, the handle on its machine, and a way to it."""
    engine = ShapedEngine(WatchedEngine(), CloudCost(cloud, MODEL))
    verifier = Verifier(EngineRunner(engine), IDENTITY, SELF_TEST, settings(**changes), costs=costs)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(verifier.run())
        try:
            yield verifier, LiveMachine(verifier, engine), MemoryConnector(verifier)
        finally:
            await verifier.drain(0)
            verifier.stop()


def pass_s(cloud, past: int) -> float:
    return CloudCost(cloud, MODEL).step_s([Work(past, 1)])


@virtually
async def test_the_next_pass_takes_the_time_of_the_new_machine_and_the_one_that_runs_that_of_the_old():
    async with running() as (_, machine, connector):
        link = await opened(connector, max_tokens=6)
        assert isinstance(await link.receive(), Verdict)
        began_s, took_s = now_s(), []
        await asyncio.sleep(pass_s(FAST, 3) / 2)
        machine.prepare(SLOW, None)()
        for _ in range(3):
            await link.receive()
            took_s.append(now_s() - began_s)
            began_s = now_s()
    assert took_s == pytest.approx([pass_s(FAST, 3), pass_s(SLOW, 4), pass_s(SLOW, 5)])


@virtually
async def test_whoever_is_waited_for_is_decoded_at_once_when_patience_ends():
    async with running(cloud=NONE, patience=1500) as (_, machine, connector):
        link = await opened(connector, max_tokens=6)
        await link.send(Draft((Node(1, 0, 5, 3),), 3))  # one that drafts is worth waiting for
        await link.receive()
        began_s = now_s()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(link.receive())
            await asyncio.sleep(0.25)
            machine.prepare(None, 0)()
            assert isinstance(await waiting, Verdict)
        assert now_s() - began_s == 0.25
        assert machine.patience == 0


@virtually
async def test_a_patience_that_grows_is_waited_for():
    async with running(cloud=NONE, patience=0) as (_, machine, connector):
        machine.prepare(None, "never")()
        assert machine.patience == "never"
        link = await opened(connector, max_tokens=6)
        await link.send(Draft((Node(1, 0, 5, 3),), 3))
        await link.receive()
        began_s = now_s()
        await link.receive()
        assert now_s() - began_s == 2


@pytest.mark.parametrize("patience", ["long", -1, 2001, True, [], {}, "nan"])
@virtually
async def test_a_patience_that_is_none_is_refused_and_nothing_changes(patience):
    async with running() as (verifier, machine, _):
        with pytest.raises(ConfigurationError, match="'auto', 'never', or milliseconds from 0 to 2000"):
            machine.prepare(SLOW, patience)
        assert (machine.patience, verifier.rounds.costs) == ("auto", None)


@virtually
async def test_a_machine_without_room_is_refused_and_nothing_changes():
    async with running() as (_, machine, _):
        with pytest.raises(CapacityError, match=r"but the memory of l40s is 48\.00 GB"):
            machine.prepare(profiles.cloud("l40s"), 0)
        assert machine.patience == "auto"


@virtually
async def test_what_passes_cost_follows_the_machine():
    async with running(cloud=NONE, costs=MEASURED) as (verifier, machine, _):
        machine.prepare(SLOW, None)()
        assert verifier.rounds.costs == RooflineCosts(CloudCost(SLOW, MODEL).machine, MODEL)
        machine.prepare(NONE, None)()
        assert verifier.rounds.costs is MEASURED
    async with running(cloud=SLOW, costs=RooflineCosts(CloudCost(SLOW, MODEL).machine, MODEL)) as (verifier, machine, _):
        machine.prepare(NONE, None)()  # it never ran without a machine, so nothing was measured
        assert verifier.rounds.costs is None
        machine.prepare(FAST, None)()
        assert verifier.rounds.costs == RooflineCosts(CloudCost(FAST, MODEL).machine, MODEL)
    async with running(cloud=SLOW, costs=None) as (verifier, machine, _):
        machine.prepare(FAST, None)()
        assert verifier.rounds.costs is None  # every draft was to be run, and still is


def test_the_draft_model_beside_the_full_one_plays_the_same_machine():
    full, draft = (ShapedEngine(WatchedEngine(), CloudCost(NONE, MODEL)) for _ in range(2))
    verifier = Verifier(EngineRunner(full), IDENTITY, SELF_TEST, settings())
    machine = changeable(FullModel(full, IDENTITY, SELF_TEST, draft), verifier)
    machine.prepare(SLOW, None)()
    for engine in (full, draft):
        engine.work_begins(0.0)
        assert engine.cost.cloud is SLOW


def test_an_engine_that_came_from_elsewhere_and_a_machine_with_two_full_models_stay_as_they_are():
    engine, bare = watched()
    shaped = FullModel(ShapedEngine(engine, CloudCost(NONE, MODEL)), IDENTITY, SELF_TEST)
    verifier = Verifier(EngineRunner(engine), IDENTITY, SELF_TEST, settings())
    assert changeable(bare, verifier) is None
    assert changeable(dataclasses.replace(shaped, draft=WatchedEngine()), verifier) is None
    assert changeable(dataclasses.replace(shaped, previous=bare), verifier) is None
    assert changeable(shaped, verifier) is not None


async def test_a_verifier_that_serves_hands_out_the_handle():
    engine, bare = watched()
    shaped = FullModel(ShapedEngine(engine, CloudCost(NONE, MODEL)), IDENTITY, SELF_TEST)
    async with server.serve(settings(), full_model=shaped) as running_:
        assert running_.machine.patience == "auto"
    async with server.serve(settings(), full_model=bare) as running_:
        assert running_.machine is None
