"""The agent as a service: start, serve, stop gracefully."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn

from device_agent.agent import DeviceAgent
from device_agent.api import build_app
from device_agent.build import build_agent
from device_agent.config import AgentConfig
from device_agent.emulation.live import VerifierControls
from device_agent.upgrades import QuietSocket
from speculation.http_server import HttpServer, tls_settings
from speculation.listening import bind, is_loopback, require_free, unbound

BACKLOG = 128
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
FLUSH_S = 5
"""How long clients may take, once all answers are over, to read their ends."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningAgent:
    """An agent that answers at ``url``."""

    agent: DeviceAgent
    host: str
    port: int
    is_tls: bool = False

    @property
    def url(self) -> str:
        host = f"[{self.host.strip('[]')}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


@asynccontextmanager
async def serve(
    config: AgentConfig, *, agent: DeviceAgent | None = None, verifier: VerifierControls | None = None
) -> AsyncIterator[RunningAgent]:
    """An agent that serves while the block runs; port 0 takes a free one. Leaving the block lets answers finish, then cuts
    them.

    ``agent`` replaces what the configuration would build; it is entered, and closed, here. ``verifier`` is a handle on the one
    that it calls, where that runs in this process.
    Raises ``ConfigurationError`` when the address cannot be bound, before anything is built, and what ``build_agent`` raises.
    """
    require_free(config.host, config.port)
    if agent is None:
        agent = await asyncio.to_thread(build_agent, config, verifier)
    with _listen(config) as listener:
        async with agent:
            running = RunningAgent(agent, config.host, listener.getsockname()[1], config.tls_cert is not None)
            async with _serving(agent, config, listener):
                yield running


async def run(config: AgentConfig, on_ready: Callable[[RunningAgent], None]) -> None:
    """Serve until SIGTERM or SIGINT, then stop; a second signal ends at once. ``on_ready`` hears where it listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with serve(config) as running:
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, _on_signal, loop, stop)
        on_ready(running)
        await stop.wait()


def _on_signal(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """The next signal, of either kind, has its usual effect again."""
    for number in STOP_SIGNALS:
        loop.remove_signal_handler(number)
    stop.set()


def _listen(config: AgentConfig) -> socket.socket:
    """A listening socket: from here on connections wait, and none is refused."""
    listener = bind(config.host, config.port)
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise unbound(f"{config.host}:{config.port}", error) from error
    return listener


@asynccontextmanager
async def _serving(agent: DeviceAgent, config: AgentConfig, listener: socket.socket) -> AsyncIterator[None]:
    """Answers HTTP while the block runs. An error of the block leaves as it is, not in a group."""
    if config.keys is not None and config.tls_cert is None and not is_loopback(config.host):
        _log.warning("keys, and all that they guard, cross the network in plain text: set tls_cert and tls_key")
    server = HttpServer(
        build_app(agent),
        FLUSH_S,
        ws=QuietSocket,
        ws_max_size=config.max_body_bytes,
        ws_per_message_deflate=False,  # small messages, and nothing of a peer's to blow up
        **tls_settings(config.tls_cert, config.tls_key),
    )
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[listener]))
        grace_s = 0.0
        try:
            yield
            grace_s = config.drain_grace_s
        except Exception as error:
            failure = error
        finally:
            await _drain(server, agent, grace_s)
    if failure is not None:
        raise failure


async def _drain(server: uvicorn.Server, agent: DeviceAgent, grace_s: float) -> None:
    """Nobody new is let in and answers end, then the server does: it would cut WebSockets at once."""
    for listening in getattr(server, "servers", ()):  # none before it has started
        listening.close()
    try:
        await agent.drain(grace_s)
    finally:
        server.should_exit = True
