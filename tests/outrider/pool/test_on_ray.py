"""What a replica on Ray makes of what Ray says. Ray is a double here; `test_running.py` has the real one, if installed."""

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from outrider.pool.members import Member
from outrider.pool.on_ray import RayReplica
from speculation.errors import ConfigurationError, LinkError

LIMIT_S = 10


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__(str(cause))
        self.cause = cause


RAY = SimpleNamespace(exceptions=SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError))


class Reference:
    """What a remote call gives at once."""

    def __init__(self):
        self.answer = Future()

    def future(self):
        return self.answer


class Actor:
    """Two calls of one actor, each answered when the test wants it."""

    def __init__(self):
        self.serving, self.telling = Reference(), Reference()
        self.serve = SimpleNamespace(remote=lambda attempt: self.serving)
        self.told = SimpleNamespace(remote=lambda attempt: self.telling)


@pytest.fixture
def actor():
    return Actor()


@pytest.fixture
def replica(actor):
    return RayReplica(RAY, actor, 7)


async def test_a_replica_that_serves_says_where(actor, replica):
    actor.telling.answer.set_result(("host:1", "node"))
    async with asyncio.timeout(LIMIT_S):
        assert await replica.start() == Member(7, "host:1", "node")


async def test_an_actor_that_dies_between_the_calls_is_waited_for_no_more(actor, replica):
    """The one that Ray starts in its place knows nothing of the attempt, and would never say where it serves."""
    actor.serving.answer.set_exception(RayError("the actor died\nand more"))
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(LinkError, match=r"^the actor died$"):
            await replica.start()


async def test_what_keeps_it_from_starting_is_told_though_its_call_returns_first(actor, replica):
    actor.serving.answer.set_result(None)
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
        starting = tasks.create_task(caught(replica.start()))
        await asyncio.sleep(0.01)
        actor.telling.answer.set_exception(RayTaskError(ConfigurationError("no such variant")))
    assert isinstance(starting.result(), ConfigurationError)


async def test_what_ends_it_is_told_to_each_who_waits(actor, replica):
    actor.telling.answer.set_result(("host:1", "node"))
    async with asyncio.timeout(LIMIT_S):
        await replica.start()
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(caught(replica.over())) for _ in range(2)]
            await asyncio.sleep(0.01)
            actor.serving.answer.set_exception(RayError("gone"))
    assert [str(task.result()) for task in waiting] == ["gone", "gone"]


async def caught(waited_for):
    try:
        await waited_for
    except Exception as error:
        return error
