"""What a gRPC client writes, byte for byte: a relay that notes it, and the messages in it."""

from __future__ import annotations

import asyncio
import contextlib

from speculation.wire import codec

PREFACE_BYTES, FRAME_HEADER_BYTES, DATA, PADDED = 24, 9, 0, 0x8
MESSAGE_HEADER_BYTES = 5


class Recorder:
    """Passes bytes on to a port of this machine; ``written`` holds those of each client, in the order in which they came."""

    def __init__(self, port: int) -> None:
        self.written: list[bytearray] = []
        self._port = port

    async def pass_on(self, reader, writer):
        noted = bytearray()
        self.written.append(noted)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        async with asyncio.TaskGroup() as tasks:
            both = tasks.create_task(copy(reader, far_writer, noted)), tasks.create_task(copy(far_reader, writer, bytearray()))
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            writer.transport.abort()
            far_writer.transport.abort()

    def take(self):
        """All bytes that were written so far, and the device's messages in them."""
        streams = [bytes(written) for written in self.written]
        return b"".join(streams), [message for written in streams for message in messages_in(written)]


async def copy(reader, writer, noted):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            noted += data
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def recording(port):
    """The address of a relay before a port, and the relay."""
    recorder = Recorder(port)
    async with await asyncio.start_server(recorder.pass_on, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", recorder


def messages_in(written):
    """The messages of a connection: HTTP/2's frames of data, stream by stream, cut as gRPC cuts them."""
    bodies, place = {}, PREFACE_BYTES
    while place + FRAME_HEADER_BYTES <= len(written):
        length, kind, flags = int.from_bytes(written[place : place + 3]), written[place + 3], written[place + 4]
        stream = int.from_bytes(written[place + 5 : place + 9])
        content = written[place + FRAME_HEADER_BYTES : place + FRAME_HEADER_BYTES + length]
        if kind == DATA:
            if flags & PADDED:
                content = content[1 : len(content) - content[0]]
            bodies.setdefault(stream, bytearray()).extend(content)
        place += FRAME_HEADER_BYTES + length
    return [message for body in bodies.values() for message in _cut(bytes(body))]


def _cut(body):
    found, place = [], 0
    while place + MESSAGE_HEADER_BYTES <= len(body):
        assert body[place] == 0, "a message that is compressed"
        end = place + MESSAGE_HEADER_BYTES + int.from_bytes(body[place + 1 : place + MESSAGE_HEADER_BYTES])
        found.append(codec.decode_request(body[place + MESSAGE_HEADER_BYTES : end]))
        place = end
    return found
