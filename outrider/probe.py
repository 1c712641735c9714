"""Whether a service is healthy, for container health checks: ``python -m outrider.probe URL``.

The URL is ``grpc://HOST:PORT``, ``grpcs://HOST:PORT`` over TLS, or one of http or https. ``--ca``: the authority that signed
the service's certificate; ``--cert`` and ``--cert-key``: a certificate of one's own, for a service that asks for one.
"""

from __future__ import annotations

import argparse
import ssl
import sys
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from speculation.links.targets import is_here

TIMEOUT_S = 3.0


def is_healthy(url: str, ca: Path | None = None, cert: Path | None = None, cert_key: Path | None = None) -> bool:
    """Whether the service answers that it serves: by the gRPC health protocol, or to a GET. What goes wrong is no health."""
    scheme, _, target = url.partition("://")
    try:
        if scheme == "grpc":
            return _serves_grpc(grpc.insecure_channel(target, options=_way_to(target)))
        if scheme == "grpcs":
            files = [path and path.read_bytes() for path in (ca, cert_key, cert)]
            return _serves_grpc(grpc.secure_channel(target, grpc.ssl_channel_credentials(*files), options=_way_to(target)))
        return _serves_http(url, ca, cert, cert_key)
    except (HTTPException, OSError, ValueError):
        return False


def _way_to(target: str) -> list[tuple[str, int]]:
    """No proxy that the environment names knows the way to this machine itself."""
    return [("grpc.enable_http_proxy", 0)] if is_here(target) else []


def _serves_grpc(channel: grpc.Channel) -> bool:
    with channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def _serves_http(url: str, ca: Path | None, cert: Path | None, cert_key: Path | None) -> bool:
    context = ssl.create_default_context(cafile=ca)
    if cert is not None:
        context.load_cert_chain(cert, cert_key)
    proxies: dict[str, str] | None = {} if is_here(urlsplit(url).netloc) else None  # None are those that the environment names
    with build_opener(ProxyHandler(proxies), HTTPSHandler(context=context)).open(url, timeout=TIMEOUT_S) as response:
        return bool(response.status == 200)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 where the service is healthy."""
    parser = argparse.ArgumentParser(prog="python -m outrider.probe", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url")
    for name in ("--ca", "--cert", "--cert-key"):
        parser.add_argument(name, type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    return int(not is_healthy(given.url, given.ca, given.cert, given.cert_key))


if __name__ == "__main__":
    sys.exit(main())
