"""A stream that ends while it is written to: what was sent too late is dropped, and reading tells how it ended."""

import grpc
import pytest

from outrider.conformance_stream import RawLink
from speculation.links.grpc import GrpcLink
from speculation.protocol.messages import Cancel


class EndedCall:
    """A call that was over before anything could be written; gRPC says so in one of two ways."""

    def __init__(self, error):
        self._cython_call, self._error = self, error

    def __aiter__(self):
        return self

    async def __anext__(self):
        raise StopAsyncIteration

    def cancel(self):
        pass

    async def wait_for_connection(self):
        pass

    async def send_serialized_message(self, data):
        raise self._error

    async def done_writing(self):
        raise self._error


ERRORS = [
    grpc.aio.InternalError("Failed execute_batch"),
    grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata()),
]


@pytest.mark.parametrize("error", ERRORS, ids=["a batch that failed", "a status"])
async def test_what_is_sent_behind_the_end_is_dropped(error):
    raw, link = RawLink(EndedCall(error)), GrpcLink(EndedCall(error))
    await raw.send_bytes(b"\xff\xff")
    await raw.half_close()
    await link.send(Cancel())
    assert [one.statistics.sent_messages for one in (raw, link)] == [0, 0]
