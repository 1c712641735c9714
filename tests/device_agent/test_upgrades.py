"""The server's end of a WebSocket, where it gives a client up while the agent still speaks to it."""

from __future__ import annotations

import asyncio

import pytest
import uvicorn
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.server import ServerState

from device_agent.upgrades import QuietSocket

HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
NO_FRAME = b"\xff" * 16


class Unread(asyncio.Transport):
    """To a client that reads nothing: what is written is never gone, so closing it takes for ever."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.is_left = False

    def write(self, data):
        self.written += data

    def close(self):
        self.is_left = True

    def is_closing(self):
        return self.is_left

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass


@pytest.mark.parametrize("say", ["send_text", "close"])
@pytest.mark.parametrize("gives_up", [QuietSocket.keepalive_timeout, lambda socket: socket.data_received(NO_FRAME)])
async def test_who_is_given_up_by_the_server_is_gone_to_the_agent(gives_up, say, caplog):
    said = []

    async def app(scope, receive, send):
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        gives_up(protocol)
        with pytest.raises(WebSocketDisconnect) as gone:
            await (socket.send_text("more") if say == "send_text" else socket.close())
        said.append(gone.value.code)

    config = uvicorn.Config(app, ws=QuietSocket, ws_ping_interval=None, log_config=None)
    config.load()
    state = ServerState()
    protocol = QuietSocket(config, state, {})
    protocol.connection_made(Unread())
    protocol.data_received(HANDSHAKE)
    await asyncio.wait(set(state.tasks))
    assert (said, caplog.records) == ([1006], [])
