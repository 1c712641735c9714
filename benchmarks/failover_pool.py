"""A pool on Ray as its operator starts it, in a process of its own, and what its list says while a replica is lost."""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

START_LIMIT_S, POLL_S = 120.0, 0.02
URL = re.compile(r"verifiers on (\S+)")


@dataclass(slots=True)
class Death:
    """When a node died, when the list no longer named its replica, and when it named one in its place. Seconds, loop time."""

    at_s: float = 0.0
    unlisted_s: float = 0.0
    replaced_s: float = 0.0


@asynccontextmanager
async def pool(address: str, num_replicas: int, num_sessions: int) -> AsyncIterator[str]:
    """``outrider verifier --engine-pool ray``, with room for all sessions in any two replicas; yields the URL of its list."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as settings:
        settings.write(f"num_slots = {num_sessions}\nmax_sessions = {num_sessions}\ndrain_grace_s = 2.0\n")
        settings.flush()
        flags = ["--engine-pool", "ray", "--replicas", str(num_replicas), "--ray-address", address, "--port", "0"]
        command = [sys.executable, "-m", "outrider", "verifier", *flags, "--config", settings.name]
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        assert process.stderr is not None
        said, listening = list[str](), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_hear(process.stderr, said, listening))
            try:
                await listening.wait()
                yield _url(said)
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()
                print("".join(said), file=sys.stderr)  # why replicas were lost, and where they went


async def _hear(stderr: asyncio.StreamReader, said: list[str], listening: asyncio.Event) -> None:
    """Take what a process says, to its end; ``listening`` is set once it says where it listens, or ends."""
    async for line in stderr:
        said.append(line.decode())
        if URL.search(said[-1]):
            listening.set()
    listening.set()


def _url(said: Sequence[str]) -> str:
    if found := URL.search("".join(said)):
        return found.group(1)
    raise RuntimeError("the pool ended before it was up: " + "".join(said))


class Watch:
    """Who is listed as a verifier, asked again and again."""

    def __init__(self, url: str, num_replicas: int) -> None:
        self._url = url
        self._num_replicas = num_replicas
        self._client = httpx.AsyncClient(trust_env=False, timeout=START_LIMIT_S)

    async def listed(self) -> dict[str, str]:
        """Nodes by target."""
        answer = (await self._client.get(self._url)).json()
        return {entry["target"]: entry["node"] for entry in answer["verifiers"]}

    async def until_whole(self) -> dict[str, str]:
        async with asyncio.timeout(START_LIMIT_S):
            while len(listed := await self.listed()) < self._num_replicas:  # noqa: ASYNC110 (another process)
                await asyncio.sleep(POLL_S)
        return listed

    async def replacement(self, target: str, death: Death) -> None:
        """Note when ``target`` is gone from the list, and when the list is whole again."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(START_LIMIT_S):
            while target in await self.listed():  # noqa: ASYNC110 (another process)
                await asyncio.sleep(POLL_S)
            death.unlisted_s = loop.time()
            await self.until_whole()
            death.replaced_s = loop.time()

    async def aclose(self) -> None:
        await self._client.aclose()
