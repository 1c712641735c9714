"""Who serves in a pool: replicas that start, are lost, start again and are drained, with no Ray in sight."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from outrider.pool.members import AGAIN_S, Member, Members, following
from speculation.errors import ConfigurationError, LinkError, PackageError
from speculation.shaping import virtual_time

START_S = 2.0
DRAIN_S = 3.0


class Scripted:
    """A replica on the loop's clock: each start takes a while and may fail; ``lose`` ends it."""

    def __init__(self, number, *failures, drain_s=DRAIN_S):
        self.number = number
        self.calls = []
        self._failures = list(failures)
        self._drain_s = drain_s
        self._starts = 0
        self._end = None

    async def start(self):
        self.calls.append("start")
        await asyncio.sleep(START_S)
        if self._failures:
            raise self._failures.pop(0)
        self._starts += 1
        self._end = asyncio.get_running_loop().create_future()
        return Member(self.number, f"host:{10 * self.number + self._starts}", f"node-{self.number}")

    async def over(self):
        await self._end

    async def drain(self):
        self.calls.append("drain")
        await asyncio.sleep(self._drain_s)

    def kill(self):
        self.calls.append("kill")

    def lose(self):
        self._end.set_exception(LinkError("the machine is gone"))


def run(work):
    return virtual_time.run(work())


def targets(members):
    return [member.target for member in members.current]


def test_replicas_are_named_once_they_serve_and_in_order():
    async def work():
        members, replicas = Members(), [Scripted(2), Scripted(1)]
        async with following(members, replicas, 10):
            assert targets(members) == []
            await asyncio.sleep(START_S + 0.1)
            assert targets(members) == ["host:11", "host:21"]

    run(work)


def test_a_lost_replica_is_named_no_more_and_again_where_it_starts_next(caplog):
    async def work():
        members, lost = Members(), Scripted(1)
        async with following(members, [lost, Scripted(2)], 10):
            await asyncio.sleep(START_S + 0.1)
            lost.lose()
            await asyncio.sleep(0.1)
            assert targets(members) == ["host:21"]
            await asyncio.sleep(AGAIN_S + START_S)
            assert targets(members) == ["host:12", "host:21"]

    run(work)
    assert "replica 1 is lost: the machine is gone" in caplog.text


def test_a_replica_whose_machine_is_lost_while_it_starts_is_started_again_and_told_once(caplog):
    async def work():
        members, replica = Members(), Scripted(1, LinkError("gone"), LinkError("gone again"))
        async with following(members, [replica], 10):
            await asyncio.sleep(3 * START_S + 2 * AGAIN_S + 0.1)
            assert targets(members) == ["host:11"]
            replica.lose()
            await asyncio.sleep(0.1)

    run(work)
    lost = [record.getMessage() for record in caplog.records if "is lost" in record.getMessage()]
    assert lost == ["replica 1 is lost: gone", "replica 1 is lost: the machine is gone"]


@pytest.mark.parametrize("error", [PackageError("the models are damaged"), ConfigurationError("no such variant")])
def test_settings_by_which_no_replica_can_start_end_the_pool_with_the_reason(error):
    async def work():
        replicas = [Scripted(1, error), Scripted(2, error)]
        with pytest.raises(type(error), match=str(error)):
            async with following(Members(), replicas, 10):
                await asyncio.sleep(60)
        assert [replica.calls[-1] for replica in replicas] == ["kill", "kill"]

    run(work)


def test_a_replica_that_cannot_start_later_is_told_and_tried_again(caplog):
    async def work():
        members, failing = Members(), Scripted(2, LinkError("slow"), PackageError("the disk is damaged"))
        async with following(members, [Scripted(1), failing], 10):
            await asyncio.sleep(2 * START_S + AGAIN_S + 0.1)
            assert targets(members) == ["host:11"]
            await asyncio.sleep(START_S + AGAIN_S)
            assert targets(members) == ["host:11", "host:21"]

    run(work)
    assert "replica 2 does not start: the disk is damaged" in caplog.text


def test_the_end_drains_all_at_once_names_nobody_and_gives_the_machines_back():
    async def work():
        loop, members, replicas, named = asyncio.get_running_loop(), Members(), [Scripted(1), Scripted(2)], []
        async with following(members, replicas, 10):
            await asyncio.sleep(START_S + 0.1)
            began_s = loop.time()
            loop.call_later(DRAIN_S / 2, lambda: named.append(targets(members)))
        assert loop.time() - began_s == pytest.approx(DRAIN_S)
        assert named == [[]]
        assert [replica.calls for replica in replicas] == [["start", "drain", "kill"]] * 2

    run(work)


def test_a_drain_that_hangs_ends_with_its_limit(caplog):
    async def work():
        loop, stuck = asyncio.get_running_loop(), Scripted(1, drain_s=1e6)
        async with following(Members(), [stuck], 10):
            await asyncio.sleep(START_S + 0.1)
            began_s = loop.time()
        assert loop.time() - began_s == pytest.approx(10)
        assert stuck.calls[-1] == "kill"

    run(work)
    assert "not every replica was drained within 10 s" in caplog.text


def test_an_error_of_the_block_leaves_as_it_is():
    async def work():
        async with following(Members(), [Scripted(1)], 10):
            await asyncio.sleep(START_S + 0.1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(work)


def test_a_cancelled_pool_is_drained_too():
    async def work():
        replica, began = Scripted(1), asyncio.Event()

        async def serve():
            async with following(Members(), [replica], 10):
                began.set()
                await asyncio.sleep(3600)

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(serve())
            await began.wait()
            await asyncio.sleep(START_S + 0.1)
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert replica.calls == ["start", "drain", "kill"]

    run(work)
