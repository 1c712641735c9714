"""An HTTP server that a service runs beside its other tasks: it says nothing of itself, and leaves signals to its owner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn


class HttpServer(uvicorn.Server):
    """A server that leaves signals and the log to whoever started it. Clients have ``flush_s`` to read what is left, once it
    should exit; ``further`` are settings of uvicorn's."""

    def __init__(self, app: Any, flush_s: int, **further: Any) -> None:
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off", "server_header": False}
        super().__init__(uvicorn.Config(app, timeout_graceful_shutdown=flush_s, **quiet, **further))
        logging.getLogger("uvicorn.error").addFilter(_is_told)  # the same filter counts once

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _is_told(record: logging.LogRecord) -> bool:
    """Not a request that was cut off, as by a second Ctrl-C: to uvicorn its task failed, and it writes a traceback for each."""
    return not (record.exc_info and isinstance(record.exc_info[1], (asyncio.CancelledError, KeyboardInterrupt)))


def tls_settings(certificate: Path | None, key: Path | None, client_authorities: Path | None = None) -> dict[str, Any]:
    """What uvicorn wants for TLS, with ``client_authorities`` for those only whose certificate these signed; plain text
    without ``certificate``."""
    return {
        "ssl_certfile": certificate,
        "ssl_keyfile": key,
        "ssl_ca_certs": None if client_authorities is None else str(client_authorities),
        "ssl_cert_reqs": ssl.CERT_NONE if client_authorities is None else ssl.CERT_REQUIRED,
    }
