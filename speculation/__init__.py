"""The shared library: the choice, the protocol, the wire, engines, links and shaping."""

import os

# Written, not read, and before any module below loads gRPC, which otherwise tells every handshake that fails, a port scan's
# too, in lines of its own on standard error, where a service may be writing its log as JSON.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # noqa: TID251
