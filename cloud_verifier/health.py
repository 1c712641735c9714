"""The health service of gRPC, which asks for no key: so nothing that anybody sends to it may fail, or fill the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2

from speculation.wire import codec

SERVED = ("", codec.SERVICE)


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # a class of no type here
    """Tells whether the verifier as a whole, and its one service, may be used.

    The library's own leaves out ``List``, and lets gRPC read the requests: both end in a traceback at the level of an error.
    """

    def handler(self) -> Any:
        """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes."""
        check, one, all_ = self.Check, health_pb2.HealthCheckRequest, health_pb2.HealthListRequest
        methods = {
            "Check": grpc.unary_unary_rpc_method_handler(_reading(one, check), response_serializer=_to_bytes),
            "List": grpc.unary_unary_rpc_method_handler(_reading(all_, self.List), response_serializer=_to_bytes),
            "Watch": grpc.unary_stream_rpc_method_handler(_reading(one, self.Watch), response_serializer=_to_bytes),
        }
        return grpc.method_handlers_generic_handler(health.SERVICE_NAME, methods)

    async def List(self, _request: Any, context: Any) -> Any:  # noqa: N802 (the method's name on the wire)
        """The status of each of ``SERVED``."""
        asked = {name: health_pb2.HealthCheckRequest(service=name) for name in SERVED}
        statuses = {name: await self.Check(request, context) for name, request in asked.items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def set_serving(self) -> None:
        """All of ``SERVED`` may be used."""
        for name in SERVED:
            await self.set(name, health_pb2.HealthCheckResponse.SERVING)


def _reading(kind: Any, method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[bytes, Any], Awaitable[Any]]:
    """A method that takes bytes, and refuses what is no request of its kind."""

    async def handle(data: bytes, context: Any) -> Any:
        try:
            request = kind.FromString(data)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the bytes are no {kind.DESCRIPTOR.name}")
        return await method(request, context)

    return handle


def _to_bytes(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
