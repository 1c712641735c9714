"""A relay in front of a verifier that keeps every byte of every connection to it, and reads them as HTTP/2 frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES = 9
DATA, HEADERS, PING = 0, 1, 6


class Recorder:
    """``sent`` holds what the caller wrote, a buffer for each connection."""

    def __init__(self) -> None:
        self.sent: list[bytearray] = []

    @property
    def num_messages(self) -> int:
        """Frames that a request could be in. Pings, settings and windows are the connection's own."""
        return sum(kind in (DATA, HEADERS) for buffer in self.sent for kind in frames(buffer))


def frames(buffer: bytes | bytearray) -> Iterator[int]:
    """The kind of each frame, a last one that is not whole included."""
    assert buffer[: len(PREFACE)] == PREFACE[: len(buffer)], "no HTTP/2"
    at = len(PREFACE)
    while at + FRAME_HEAD_BYTES <= len(buffer):
        yield buffer[at + 3]
        at += FRAME_HEAD_BYTES + int.from_bytes(buffer[at : at + 3], "big")


@asynccontextmanager
async def recorded(target: str) -> AsyncIterator[tuple[str, Recorder]]:
    """The address to call instead of ``target``, and what is recorded there."""
    recorder, (host, port) = Recorder(), target.rsplit(":", 1)
    connections: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            connections.add(task)
        with suppress(asyncio.CancelledError):  # the block below is left: nobody else ends this task
            await _relay(recorder, host, int(port), reader, writer)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", recorder
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections)


async def _relay(recorder: Recorder, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    recorder.sent.append(buffer := bytearray())
    try:
        far_reader, far_writer = await asyncio.open_connection(host, port)
    except BaseException:  # whoever is cut off here, too, leaves nothing open
        writer.close()
        raise
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_pump(reader, far_writer, buffer))
        tasks.create_task(_pump(far_reader, writer, bytearray()))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, buffer: bytearray) -> None:
    try:
        while data := await reader.read(65536):
            buffer += data
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()
