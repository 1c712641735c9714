"""Streams to a verifier from within Locust: gRPC's blocking calls; its experimental support for gevent lets others run on."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from speculation.links.targets import is_here
from speculation.tenants import AUTHORIZATION, bearer
from speculation.wire import codec

# Every user is a device of its own, with a connection of its own.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]


class Wire:
    """A connection to the verifier at ``target`` (``host:port``)."""

    def __init__(self, target: str, key: str | None) -> None:
        # No proxy that the environment names knows the way to this machine itself.
        way = [("grpc.enable_http_proxy", 0)] if is_here(target) else []
        self._channel = grpc.insecure_channel(target, options=[*_OPTIONS, *way])
        self._metadata = None if key is None else ((AUTHORIZATION, bearer(key)),)

    def call(self, messages: Sequence[bytes], limit_s: float) -> Call:
        """A new stream that begins with these messages; after ``limit_s`` it ends with DEADLINE_EXCEEDED."""
        return Call(self._channel.stream_stream(codec.METHOD_PATH), messages, self._metadata, limit_s)

    def close(self) -> None:
        """Every stream ends."""
        self._channel.close()


class Call:
    """One stream. Iterating gives what the verifier says, and raises ``grpc.RpcError`` for an end that is not in order."""

    def __init__(self, method: Any, messages: Sequence[bytes], metadata: Any, limit_s: float) -> None:
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.send(messages)
        self._call = method(iter(self._out.get, None), metadata=metadata, timeout=limit_s)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._call)

    def send(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._out.put(message)

    def close(self) -> None:
        """End it, if it has not ended; whoever waits for more to send is let go."""
        self._out.put(None)
        self._call.cancel()


def status_of(error: grpc.RpcError) -> str:
    """The name of the code that a call ended with, and what was said of it."""
    return f"{error.code().name}: {error.details() or 'nothing was said'}"
