"""One replica of a pool, in the process that runs it: a verifier as ``cloud_verifier.server`` serves it, on its own port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from functools import partial

from cloud_verifier import server
from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel, build_engine
from cloud_verifier.ports import parse_ports, turned
from speculation.errors import ConfigurationError, LinkError

EVERYWHERE = ("0.0.0.0", "::")
"""Addresses that are bound, and that nobody can call."""


class ReplicaActor:
    """Serves until it is drained, in an event loop that whoever runs it owns.

    ``node_ip`` is where other machines call this one. ``build`` replaces the model that the configuration would load.
    """

    def __init__(self, number: int, config: VerifierConfig, node_ip: str, build: Callable[[], FullModel] | None = None) -> None:
        self._ports = turned(parse_ports(config.replica_ports), number)
        self._config = config
        self._node_ip = node_ip
        self._build = build or partial(build_engine, config)
        self._told: dict[int, asyncio.Future[str]] = {}
        self._running: server.RunningVerifier | None = None
        self._starting = asyncio.Lock()
        self._drained, self._ended = asyncio.Event(), asyncio.Event()

    @property
    def num_sessions(self) -> int:
        """Sessions that run here now."""
        return 0 if self._running is None else self._running.pairs.num_sessions

    async def serve(self, attempt: int) -> None:
        """Serve until ``drain``. That a verifier cannot start is told by ``target``, what breaks later is raised here.

        Where it serves already, or is about to, for whoever lost sight of it, this waits for the same end; it raises
        ``LinkError`` where that is none in order. Whoever asks behind such an end gets a verifier anew.
        """
        told = self._answer(attempt)
        try:
            async with AsyncExitStack() as stack:
                async with self._starting:  # a second model beside one that still loads might not fit, and nobody would end it
                    joined = self._running
                    running = joined or await self._start(stack)
                told.set_result(self._address(running.port))
                await (self._ended if joined else self._drained).wait()
                if joined and not self._drained.is_set():
                    raise LinkError("it broke while it served")
        except Exception as error:
            if told.done():
                raise
            told.set_exception(error)

    async def target(self, attempt: int) -> str:
        """Where that attempt serves (``host:port``), as soon as it does; may be asked before ``serve``.

        Raises what a verifier raises that cannot start.
        """
        return await asyncio.shield(self._answer(attempt))

    async def drain(self) -> None:
        """Let ``serve`` return: what runs may finish within the grace."""
        self._drained.set()

    async def _start(self, stack: AsyncExitStack) -> server.RunningVerifier:
        """A verifier that serves until the stack is left."""
        model = await asyncio.to_thread(self._build)
        # Behind the seconds that loading takes, in which another replica of this machine may have bound one.
        port = free_port(self._config.host, self._ports)
        self._ended.clear()
        stack.callback(self._ends)
        serving = server.serve(self._config.model_copy(update={"port": port}), full_model=model)
        self._running = await stack.enter_async_context(serving)
        return self._running

    def _ends(self) -> None:
        self._running = None
        self._ended.set()

    def _answer(self, attempt: int) -> asyncio.Future[str]:
        """One for each attempt: calls of one caller may be taken up in any order."""
        return self._told.setdefault(attempt, asyncio.get_running_loop().create_future())

    def _address(self, port: int) -> str:
        host = self._config.host.strip("[]")
        host = self._node_ip if host in EVERYWHERE else host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free_port(host: str, ports: Iterable[int]) -> int:
    """The first of ``ports`` that can be bound. Raises ``ConfigurationError`` where none can."""
    host = host.strip("[]")
    for port in ports:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ConfigurationError(f"replica_ports: none of them is free on {host}")
