"""Proxies by name: each listens on one address, passes on to another, and has toxics. One task group owns all they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from outrider.proxy.connection import Connection, End
from speculation.errors import ConfigurationError
from speculation.links.targets import is_host
from speculation.listening import bind
from speculation.settings import require_loopback
from speculation.shaping.catalogue import BUNDLED, Catalogue
from speculation.shaping.lane import Lane
from speculation.shaping.network import NetworkProfile
from speculation.shaping.pacing import Pipe
from speculation.shaping.profiles import UNSHAPED
from speculation.shaping.toxics import Stream, Toxic

BACKLOG = 128
CONNECT_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 256
"""Of one proxy; a connection more is closed at once."""

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, name: str, first_port: int = 0) -> Address:
    """``HOST:PORT``. Raises ``ConfigurationError`` that names the setting."""
    host, colon, port = text.rpartition(":")
    if not (is_host(host) and colon and port.isascii() and port.isdecimal() and first_port <= int(port) <= 65535):
        raise ConfigurationError(f"{name} must be host:port, such as 127.0.0.1:50052, not {text!r}")
    return Address(host.strip("[]"), int(port))


@dataclass(eq=False)
class Proxy:
    """One listener and all its connections. ``network`` is what they share; toxics act on each of them."""

    name: str
    listen: Address
    upstream: Address
    network: NetworkProfile
    seed: int
    tasks: asyncio.TaskGroup
    tell: Tell
    toxics: list[Toxic] = field(default_factory=list)
    _listener: asyncio.Server | None = None
    _connections: set[Connection] = field(default_factory=set)
    _connecting: set[asyncio.Task[None]] = field(default_factory=set)
    _num_accepted: int = 0
    _pipes: tuple[Pipe, Pipe] | None = None

    @property
    def is_enabled(self) -> bool:
        return self._listener is not None

    async def enable(self) -> None:
        """Listen; port 0 takes a free one and keeps it. Raises ``ConfigurationError`` where the address cannot be bound."""
        if self._listener is not None:
            return
        loop = asyncio.get_running_loop()
        if self._pipes is None and self.network.name != UNSHAPED:
            self._pipes = self.network.pipes(self.seed, loop.time())
        listener = bind(self.listen.host, self.listen.port)
        self.listen = Address(self.listen.host, listener.getsockname()[1])
        # Not yet serving it is there at once: whoever disables or removes this proxy meanwhile finds it.
        self._listener = await loop.create_server(self._accept, sock=listener, backlog=BACKLOG, start_serving=False)
        await self._listener.start_serving()

    def disable(self) -> None:
        """Take no connection and cut those that are there."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        for task in list(self._connecting):
            task.cancel()
        for connection in list(self._connections):
            connection.reset()
            connection.end_is_closed()

    def set_toxics(self, toxics: list[Toxic]) -> None:
        """These act from now on, on connections that are there, too."""
        self.toxics = toxics
        now_s = asyncio.get_running_loop().time()
        for connection in list(self._connections):
            for end, stream in zip(connection.ends, Stream, strict=True):
                end.lane.set_toxics(self._of(stream), now_s)
            for end in connection.ends:
                end.deliver()

    def to_json(self) -> dict[str, Any]:
        known = {"name": self.name, "listen": str(self.listen), "upstream": str(self.upstream), "enabled": self.is_enabled}
        return known | {"network": self.network.name, "toxics": [toxic.to_json() for toxic in self.toxics]}

    def _of(self, stream: Stream) -> list[Toxic]:
        return [toxic for toxic in self.toxics if toxic.stream is stream]

    def _accept(self) -> End:
        """The client's end of a new connection. The server's is made by a task of its own."""
        if not self.is_enabled:
            # It was accepted just before the listener closed. asyncio would leave it open, without an end that reads it; for
            # what is raised here it drops it.
            raise ConnectionAbortedError(f"{self.name} was disabled meanwhile")
        self._num_accepted += 1
        number = self._num_accepted
        upstream, downstream = self._lanes(number)
        connection = Connection(upstream, downstream, self._forget(number))
        has_room = len(self._connections) < MAX_CONNECTIONS  # those that come behind it are not there before it
        self._connections.add(connection)
        task = self.tasks.create_task(self._connect(connection, number, has_room))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return connection.client

    def _lanes(self, number: int) -> Iterator[Lane]:
        now_s = asyncio.get_running_loop().time()
        for stream, pipe in zip(Stream, self._pipes or (None, None), strict=True):
            lane = Lane(pipe, f"{self.seed} {number} {stream}", has_headers=bool(self.network.overhead_bytes))
            if toxics := self._of(stream):
                lane.set_toxics(toxics, now_s)
            yield lane

    async def _connect(self, connection: Connection, number: int, has_room: bool) -> None:
        loop = asyncio.get_running_loop()
        if not has_room:
            connection.reset()
            return
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._hold()
                await loop.create_connection(lambda: connection.server, self.upstream.host, self.upstream.port)
        except (OSError, TimeoutError) as error:
            self.tell({"event": "unreachable", "proxy": self.name, "connection": number, "error": str(error) or "timed out"})
            connection.reset()
            connection.end_is_closed()
            return
        self.tell({"event": "opened", "proxy": self.name, "connection": number})
        for end in connection.ends:
            end.deliver()

    async def _hold(self) -> None:
        """The TCP handshake across the network: one round trip, once its radio is awake."""
        if self._pipes is not None:
            now_s = asyncio.get_running_loop().time()
            await asyncio.sleep(self._pipes[0].held_until(now_s) - now_s + self.network.round_trip_s)

    def _forget(self, number: int) -> Callable[[Connection], None]:
        def forget(connection: Connection) -> None:
            self._connections.discard(connection)
            up, down = connection.client.num_bytes, connection.server.num_bytes
            self.tell(
                {"event": "closed", "proxy": self.name, "connection": number, "upstream_bytes": up, "downstream_bytes": down}
            )

        return forget


class Proxies:
    """All proxies of this process, by name. ``catalogue`` is where networks are looked up."""

    def __init__(self, tasks: asyncio.TaskGroup, insecure: bool, tell: Tell, catalogue: Catalogue) -> None:
        self.by_name: dict[str, Proxy] = {}
        self.catalogue = catalogue
        self._tasks = tasks
        self._insecure = insecure
        self._tell = tell

    def check(self, listen: Address) -> None:
        """Raises ``ConfigurationError`` for an address that others reach, unless that is allowed."""
        require_loopback(listen.host, self._insecure)

    async def add(
        self, name: str, listen: Address, upstream: Address, network: NetworkProfile, seed: int, is_enabled: bool = True
    ) -> Proxy:
        """A new proxy. Raises ``ConfigurationError``: an address that others reach, or that cannot be bound."""
        self.check(listen)
        proxy = Proxy(name, listen, upstream, network, seed, self._tasks, self._tell)
        self.by_name[name] = proxy
        try:
            if is_enabled:
                await proxy.enable()
        except ConfigurationError:
            del self.by_name[name]
            raise
        return proxy

    def move(self, proxy: Proxy, listen: Address, upstream: Address) -> None:
        """Other addresses; the proxy is disabled until it is enabled again. Raises ``ConfigurationError``."""
        self.check(listen)
        proxy.disable()
        proxy.listen, proxy.upstream = listen, upstream

    def remove(self, name: str) -> None:
        self.by_name.pop(name).disable()

    def close(self) -> None:
        for proxy in self.by_name.values():
            proxy.disable()


@asynccontextmanager
async def proxies(insecure: bool, tell: Tell, catalogue: Catalogue = BUNDLED) -> AsyncIterator[Proxies]:
    """Proxies that live while the block runs. An error of the block leaves as it is, not in a group."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        held = Proxies(tasks, insecure, tell, catalogue)
        try:
            yield held
        except Exception as error:
            failure = error
        finally:
            held.close()
    if failure is not None:
        raise failure
