"""A way to a server that breaks: a proxy that cuts connections where it is told to."""

from __future__ import annotations

import asyncio
import contextlib

from tests.device_agent.doubles import wait_until


class CuttingProxy:
    """Passes bytes on, and cuts each connection after the next of ``limits`` bytes of its answer, while there are any; or
    leaves it open and says nothing more, where it ``holds`` it."""

    def __init__(self, port: int) -> None:
        self.limits: list[int] = []
        self.holds = False
        self.num_cut = self.num_open = self.num_opened = 0
        self._port = port

    async def pass_on(self, reader, writer):
        limit = self.limits.pop(0) if self.limits else None
        self.num_open += 1
        self.num_opened += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        async with asyncio.TaskGroup() as tasks:
            both = tasks.create_task(self._copy(reader, far_writer)), tasks.create_task(self._copy(far_reader, writer, limit))
            _, left = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            writer.transport.abort()
            far_writer.transport.abort()
            for task in left:
                task.cancel()
        self.num_open -= 1

    async def _copy(self, reader, writer, limit=None):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536 if limit is None else min(limit, 65536)):
                writer.write(data)
                await writer.drain()
                if limit is not None and (limit := limit - len(data)) <= 0:
                    self.num_cut += 1
                    if self.holds:
                        await asyncio.Event().wait()
                    return


@contextlib.asynccontextmanager
async def cutting(port: int):
    """The URL of a proxy before a port of this machine, and the proxy; at the end every connection is closed."""
    proxy = CuttingProxy(port)
    server = await asyncio.start_server(proxy.pass_on, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", proxy
        await wait_until(lambda: proxy.num_open == 0)
