"""Sockets that services listen at, and which addresses are this machine's alone."""

from __future__ import annotations

import errno
import ipaddress
import socket

from speculation.errors import ConfigurationError

HINTS = {
    errno.EADDRINUSE: "; stop what serves there, or name another port (0 takes a free one)",
    errno.EADDRNOTAVAIL: "; name an address of this machine, or 0.0.0.0 for all of them",
    errno.EACCES: "; ports below 1024 are the administrator's: name another",
}
"""What helps where an address cannot be bound."""


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket with that address (port 0: a free one), not listening yet. Raises ``ConfigurationError``.

    It names its protocol: asyncio turns Nagle's algorithm (RFC 896) off on a connection whose socket does, and a connection has
    that of the socket it came in at. With the algorithm on, the first event of an answer waited behind its headers for the
    client's delayed acknowledgement: 40 ms on Linux, for each request of a connection that is kept.
    """
    bare = host.strip("[]")
    bound = socket.socket(socket.AF_INET6 if ":" in bare else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((bare, port))
    except OSError as error:
        bound.close()
        raise unbound(f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}", error) from error
    bound.setblocking(False)
    return bound


def require_free(host: str, port: int) -> None:
    """Raises ``ConfigurationError`` where that address cannot be bound: before a model is loaded, which may take minutes."""
    bind(host, port).close()


def unbound(address: object, error: OSError) -> ConfigurationError:
    """That nothing can listen at an address, and what would help."""
    hint = HINTS.get(error.errno or 0, "")
    return ConfigurationError(f"cannot listen on {address}: {error.strerror or error}{hint}")


def is_loopback(host: str) -> bool:
    """Whether an address or name stands for this machine alone; names are not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
