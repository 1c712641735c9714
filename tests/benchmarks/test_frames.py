"""The uplink's decomposition: every byte is counted once, whatever pieces it comes in."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.frames import PREFACE, Share, UplinkBytes
from benchmarks.uplink import counting_proxy
from speculation.links.grpc import GrpcConnector
from speculation.protocol.messages import Cancel, DeviceMessage, Draft, Node, Opened
from speculation.wire import codec
from tests.speculation.links.endpoint import OPEN, Script, listening

LIMIT_S = 20

DRAFT = codec.encode_request(Draft((Node(1, 0, 300, 5),), 5))
CANCEL = codec.encode_request(Cancel())


def frame(kind: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, 0]) + stream.to_bytes(4) + payload


def message(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4) + data


CONNECTION = b"".join(
    [
        PREFACE,
        frame(4, 0, b""),
        frame(1, 1, b"h" * 20),
        frame(0, 1, message(DRAFT)),
        frame(8, 1, b"wwww"),
        frame(8, 0, b"wwww"),
        frame(0, 1, message(DRAFT) + message(CANCEL)[:3]),
        frame(0, 1, message(CANCEL)[3:]),
        frame(6, 0, b"p" * 8),
        frame(3, 1, b"rrrr"),
    ]
)
EXPECTED = {
    Share.DRAFTS: 2 * len(DRAFT),
    Share.FRAMING: 3 * 9 + 3 * 5,
    Share.WINDOWS: 2 * 13,
    Share.CALLS: 29 + 13 + len(CANCEL),
    Share.CONNECTION: 24 + 9 + 17,
}


@given(st.lists(st.integers(0, len(CONNECTION)), max_size=12))
def test_every_byte_is_counted_once_and_for_what_it_is(cuts: list[int]) -> None:
    count = UplinkBytes()
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(CONNECTION)], strict=True):
        count.feed(CONNECTION[begin:end])
    assert dict(count.shares) == EXPECTED
    assert count.total == len(CONNECTION)
    assert count.num_drafts == 2


def test_other_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="HTTP/2"):
        UplinkBytes().feed(b"GET / HTTP/1.1\r\n")


class Listener(Script):
    """Says that it runs, and hears one message."""

    def __init__(self) -> None:
        super().__init__([Opened("s", 32, "f")], stays_open=True)
        self.has_heard = asyncio.Event()

    def receive(self, message: DeviceMessage) -> None:
        self.has_heard.set()


async def test_what_grpc_writes_is_told_apart() -> None:
    count = UplinkBytes()
    async with (
        asyncio.timeout(LIMIT_S),
        listening(listener := Listener()) as verifier,
        counting_proxy(verifier, count) as target,
    ):
        connector = GrpcConnector(target)
        link = await connector.connect()
        await link.send(OPEN)
        await link.receive()
        count.clear()
        await link.send(Draft((Node(1, 0, 300, 5),), 5))
        await listener.has_heard.wait()
        # Updates of the stream's window and of the connection's, for what came down; they may come together or after the draft.
        assert count.shares.pop(Share.WINDOWS, 0) in (0, 13, 2 * 13)
        # A ping, by which gRPC finds out what the way carries once something came down; mostly it left before.
        assert count.shares.pop(Share.CONNECTION, 0) in (0, 17)
        assert count.shares == {Share.DRAFTS: len(DRAFT), Share.FRAMING: 9 + 5}
        await connector.aclose()
