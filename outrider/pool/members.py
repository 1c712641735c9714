"""The verifiers of a pool that serve now: each replica is started, watched until it ends, and started again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from speculation.errors import LinkError, OutriderError

AGAIN_S = 0.5
"""How long after its end a replica is asked to serve again; who runs it has its own delays on top."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """A replica that serves at ``target`` (``host:port``), on the machine that ``node`` names."""

    number: int
    target: str
    node: str


class Replica(Protocol):
    """One verifier of a pool, wherever it runs. What becomes of its machine is a ``LinkError``."""

    @property
    def number(self) -> int: ...

    async def start(self) -> Member:
        """Let it serve. Raises ``LinkError``, and what a verifier raises that cannot start."""

    async def over(self) -> None:
        """Return once it has ended in order. Raises ``LinkError`` once it is lost."""

    async def drain(self) -> None:
        """Refuse new sessions, let those that run finish within the grace, end."""

    def kill(self) -> None:
        """Give its machine back."""


class Members:
    """Who serves now, by number. ``current`` is what devices are told."""

    def __init__(self) -> None:
        self._serving: dict[int, Member] = {}
        self._has_served = False

    @property
    def current(self) -> list[Member]:
        """In order of their numbers; nobody whom no task follows any more, so none while the pool drains."""
        return [self._serving[number] for number in sorted(self._serving)]

    async def follow(self, replica: Replica) -> None:
        """Keep one replica serving, for as long as this task lives.

        Raises what keeps a verifier from starting at all, as long as none of the pool ever has: that is the settings' fault.
        """
        is_lost = False
        while True:
            try:
                await self._take_in(replica)
                is_lost = False
                await replica.over()
            except LinkError as error:
                if not is_lost:  # once: it may take many tries until it is back
                    _log.warning("replica %d is lost: %s", replica.number, error)
                is_lost = True
            except OutriderError as error:
                if not self._has_served:
                    raise
                _log.error("replica %d does not start: %s", replica.number, error)
            finally:
                self._serving.pop(replica.number, None)
            await asyncio.sleep(AGAIN_S)

    async def _take_in(self, replica: Replica) -> None:
        member = await replica.start()
        self._serving[replica.number], self._has_served = member, True
        _log.info("replica %d serves at %s, on %s", member.number, member.target, member.node)


@asynccontextmanager
async def following(members: Members, replicas: Sequence[Replica], drain_limit_s: float) -> AsyncIterator[None]:
    """Every replica is followed while the block runs; behind it all are drained. An error of the block, or the first that keeps
    the pool from starting, leaves as it is."""
    failure: Exception | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            followers = [tasks.create_task(members.follow(replica)) for replica in replicas]
            try:
                yield
            except Exception as error:
                failure = error
            for follower in followers:
                follower.cancel()
    except* OutriderError as group:
        failure = next(error for error in group.exceptions if isinstance(error, OutriderError))
    finally:
        await drain(replicas, drain_limit_s)
    if failure is not None:
        raise failure


async def drain(replicas: Sequence[Replica], limit_s: float) -> None:
    """Drain every replica at once, and give all machines back, after ``limit_s`` at the latest."""
    try:
        async with asyncio.timeout(limit_s), asyncio.TaskGroup() as tasks:
            for replica in replicas:
                tasks.create_task(_drain(replica))
    except TimeoutError:
        _log.warning("not every replica was drained within %g s", limit_s)
    finally:
        for replica in replicas:
            replica.kill()


async def _drain(replica: Replica) -> None:
    try:
        await replica.drain()
    except LinkError as error:
        _log.warning("replica %d was lost before it was drained: %s", replica.number, error)
