"""Counts requests that were refused, whoever refused them."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STARTS = ("http.response.start", "websocket.http.response.start")
"""The second refuses a WebSocket before it is one."""


class RefusalCount:
    """Tells ``refused`` the status of each response that is one of an error."""

    def __init__(self, app: ASGIApp, refused: Callable[[int], None]) -> None:
        self._app = app
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] in _STARTS and message["status"] >= 400:
                self._refused(message["status"])
            await send(message)

        await self._app(scope, receive, counted)
