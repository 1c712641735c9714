"""The proxy as a service: its first proxy, the control of all of them, and a loop whose timers are exact."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from outrider.proxy.control import build_app
from outrider.proxy.service import Address, Proxies, Proxy, Tell, proxies
from speculation.http_server import HttpServer
from speculation.listening import bind
from speculation.settings import require_loopback
from speculation.shaping.catalogue import BUNDLED, Catalogue
from speculation.shaping.network import NetworkProfile

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
FLUSH_S = 5
"""How long clients of the control may take, once all is over, to read their answers."""

FIRST_NAME = "outrider"
"""The name, in the control, of the proxy that the command line starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """What one proxy does. ``allowed_hosts`` are names besides loopback's under which the control may be addressed, and
    ``catalogue`` is where the control looks networks up.

    Raises ``ConfigurationError`` for an address that others reach, unless ``insecure`` allows it."""

    listen: Address
    upstream: Address
    network: NetworkProfile
    seed: int = 0
    control: Address | None = None
    insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    catalogue: Catalogue = BUNDLED

    def __post_init__(self) -> None:
        require_loopback(self.listen.host, self.insecure)
        if self.control is not None:
            require_loopback(self.control.host, self.insecure)


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A proxy that listens at ``proxy.listen``, and its control, where there is one."""

    proxy: Proxy
    all: Proxies
    control: Address | None


@asynccontextmanager
async def serve(settings: ProxySettings, tell: Tell) -> AsyncIterator[RunningProxy]:
    """A proxy that works while the block runs; port 0 takes a free one. Leaving the block cuts its connections.

    ``tell`` hears of connections. Raises ``ConfigurationError`` when an address cannot be bound.
    """
    async with proxies(settings.insecure, tell, settings.catalogue) as held:
        proxy = await held.add(FIRST_NAME, settings.listen, settings.upstream, settings.network, settings.seed)
        async with _controlled(held, settings.control, settings.allowed_hosts) as control:
            yield RunningProxy(proxy, held, control)


async def run(settings: ProxySettings, tell: Tell) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends at once. ``tell`` hears first where it listens.

    Where it raises ``OSError``, as whoever read what it writes is gone, the proxy ends with that.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    failures: list[OSError] = []

    def hear(event: dict[str, Any]) -> None:
        """Called by tasks and callbacks, none of which could pass a failure on."""
        if failures:
            return
        try:
            tell(event)
        except OSError as error:
            failures.append(error)
            stop.set()

    async with serve(settings, hear) as running:
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, _on_signal, loop, stop)
        known = {"control": str(running.control) if running.control else None, "seed": settings.seed}
        hear({"event": "listening"} | running.proxy.to_json() | known)
        await stop.wait()
        if failures:
            raise failures[0]


def _on_signal(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """The next signal, of either kind, has its usual effect again."""
    for number in STOP_SIGNALS:
        loop.remove_signal_handler(number)
    stop.set()


@asynccontextmanager
async def _controlled(held: Proxies, address: Address | None, allowed_hosts: tuple[str, ...]) -> AsyncIterator[Address | None]:
    """Answers HTTP while the block runs, where an address is given. An error of the block leaves as it is."""
    if address is None:
        yield None
        return
    failure: Exception | None = None
    with bind(address.host, address.port) as listener:
        server = HttpServer(build_app(held, address.host, allowed_hosts), FLUSH_S)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]))
            try:
                yield Address(address.host, listener.getsockname()[1])
            except Exception as error:
                failure = error
            finally:
                server.should_exit = True
    if failure is not None:
        raise failure
