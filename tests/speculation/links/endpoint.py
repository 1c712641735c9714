"""A verifier's end that says what it is told to, for the tests of links."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc

from speculation.links.grpc import GrpcConnector
from speculation.links.memory import MemoryConnector
from speculation.links.status import DETAILS_KEY, status_from
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Open, PairIdentity
from speculation.wire import codec

OPEN = Open("s", 1, PairIdentity("a", "b", "c"), (1, 2, 3), 3, SamplingParameters(), 8)


class Script:
    """Both an endpoint for the memory link and a gRPC service: notes what it receives, says ``messages``, then ends."""

    def __init__(self, messages=(), error=None, stays_open=False):
        self.messages = list(messages)
        self.error = error
        self.received = []
        self.is_closed = asyncio.Event()
        self.stays_open = stays_open

    def attach(self, message):
        self.received.append(message)
        return self

    def receive(self, message):
        self.received.append(message)

    async def next(self):
        if self.messages:
            return self.messages.pop(0)
        if self.stays_open:
            await self.is_closed.wait()
        if self.error is not None:
            raise self.error
        return None

    def close(self):
        self.is_closed.set()

    async def verify(self, _requests, context):
        try:
            self.attach(codec.decode_request(await context.read()))
            while self.messages:
                await context.write(codec.encode_response(self.messages.pop(0)))
            while self.stays_open and (data := await context.read()) is not grpc.aio.EOF:
                self.receive(codec.decode_request(data))
        finally:
            self.close()
        if self.error is not None:
            status = status_from(self.error)
            code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
            await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))


@asynccontextmanager
async def connected(kind, script):
    """A connector of one kind to the script."""
    if kind == "memory":
        yield MemoryConnector(script)
        return
    async with listening(script) as target:
        connector = GrpcConnector(target)
        try:
            yield connector
        finally:
            await connector.aclose()


@asynccontextmanager
async def listening(script, port=0):
    """The script as a gRPC service; yields its target."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    method = grpc.stream_stream_rpc_method_handler(script.verify)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(codec.SERVICE, {codec.METHOD: method}),))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
