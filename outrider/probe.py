"""Whether a service is healthy, for container health checks: ``python -m outrider.probe grpc://HOST:PORT`` or an http URL."""

from __future__ import annotations

import sys
from urllib.error import URLError
from urllib.request import urlopen

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 3.0


def is_healthy(url: str) -> bool:
    """Whether the service answers that it serves. A ``grpc://`` URL is asked by the gRPC health protocol, another by GET."""
    scheme, _, target = url.partition("://")
    return _serves_grpc(target) if scheme == "grpc" else _serves_http(url)


def _serves_grpc(target: str) -> bool:
    with grpc.insecure_channel(target) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _serves_http(url: str) -> bool:
    try:
        with urlopen(url, timeout=TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(not is_healthy(sys.argv[1]))
