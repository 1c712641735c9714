"""The server's end of a WebSocket, as uvicorn has it, but for what it says in the log."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class QuietSocket(WebSocketsSansIOProtocol):
    """Logs no headers at any level, as they may hold a key, and no error where an upgrade was refused as it should be: to
    uvicorn a handshake that was answered with another status than 101 is one that was forgotten.

    Who was given up here, as one who answers no ping, has gone away. To uvicorn what is said to them until their connection is
    gone, too, is a fault of who says it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn.debug = False

    async def send(self, message: Any) -> None:
        try:
            await super().send(message)
        except RuntimeError as error:
            if not self.close_sent:
                raise
            raise ClientDisconnected from error
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True
