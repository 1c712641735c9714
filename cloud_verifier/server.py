"""The verifier as a service: start, health, graceful stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from cloud_verifier.assembly import assemble
from cloud_verifier.config import VerifierConfig
from cloud_verifier.door import Door, DoorInterceptor
from cloud_verifier.emulation import LiveMachine, changeable
from cloud_verifier.engine import FullModel, build_engine
from cloud_verifier.health import HealthServicer
from cloud_verifier.inlet import Readers
from cloud_verifier.metrics import VerifierMetrics
from cloud_verifier.pairs import Pairs
from cloud_verifier.servicer import VerificationServicer
from cloud_verifier.verification import Verifier
from speculation.engines.base import Engine
from speculation.engines.runner import EngineRunner
from speculation.errors import ConfigurationError
from speculation.keys import load_keys
from speculation.listening import is_loopback, require_free, unbound
from speculation.telemetry import exposition
from speculation.telemetry.exposition import Listener
from speculation.telemetry.otel import tracer_to
from speculation.telemetry.spans import UNTRACED, Tracer
from speculation.tenants import Keyring

FLUSH_S = 2.0
PING_INTERVAL_MS = 10_000
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningVerifier:
    """A verifier that accepts streams at ``target`` (``host:port``), for each of ``pairs``. ``machine`` changes what it plays,
    where that can be changed."""

    pairs: Pairs
    config: VerifierConfig
    port: int
    metrics_url: str | None = None
    machine: LiveMachine | None = None

    @property
    def verifier(self) -> Verifier:
        """That of the newest pair."""
        return self.pairs.newest

    @property
    def target(self) -> str:
        return _address(self.config.host, self.port)


@asynccontextmanager
async def serve(
    config: VerifierConfig,
    *,
    engine_runner: EngineRunner[Engine] | None = None,
    full_model: FullModel | None = None,
    tracer: Tracer | None = None,
) -> AsyncIterator[RunningVerifier]:
    """A verifier that serves while the block runs; port 0 takes a free one. Leaving the block drains it.

    ``full_model`` replaces what the configuration would load. ``engine_runner`` replaces the thread on which it would run, and
    stays its owner's to shut down; its engine must be that of ``full_model``, or decorate it. ``tracer`` replaces the one that
    the configuration names, and is closed here.
    Raises ``ConfigurationError`` when the address cannot be bound, before a model is loaded, and what ``build_engine`` raises.
    """
    _require_free(config)
    tracer = tracer or tracer_to(config.otlp_endpoint, "outrider-verifier")
    if full_model is None:
        full_model = await asyncio.to_thread(build_engine, config)
    with ExitStack() as stack:
        pairs = await assemble(full_model, config, stack, engine_runner)
        keyring = None if config.keys is None else load_keys(config.keys)
        async with (
            _figures(pairs, full_model, config, keyring) as metrics_url,
            _tracing(tracer),
            _passes(pairs),
            _listen(pairs, config, keyring, tracer) as port,
        ):
            yield RunningVerifier(pairs, config, port, metrics_url, changeable(full_model, pairs.newest))


async def run(
    config: VerifierConfig, on_ready: Callable[[RunningVerifier], None], *, full_model: FullModel | None = None
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once. ``on_ready`` hears where it listens."""
    async with serve(config, full_model=full_model) as running:
        stop = stop_on_signal()
        on_ready(running)
        await stop.wait()


def stop_on_signal() -> asyncio.Event:
    """An event that the first signal sets; the next one has its usual effect again."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal() -> None:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
        stop.set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    return stop


@asynccontextmanager
async def _passes(pairs: Pairs) -> AsyncIterator[None]:
    """Every pair's pass loop runs while the block does. An error of the block leaves as it is, not in a group."""
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        for verifier in pairs.verifiers:
            group.create_task(verifier.run())
        try:
            yield
        except Exception as error:
            failure = error
        finally:
            pairs.stop()
    if failure is not None:
        raise failure


@asynccontextmanager
async def _figures(
    pairs: Pairs, full_model: FullModel, config: VerifierConfig, keyring: Keyring | None
) -> AsyncIterator[str | None]:
    """Where the figures are served while the block runs; None where nobody asked for them, and nothing is counted then."""
    if config.metrics_port is None:
        yield None
        return
    metrics = VerifierMetrics(pairs, full_model.engine.description.name, config.metrics_compat)
    files = config.tls_cert, config.tls_key, config.tls_client_ca
    async with exposition.serving(metrics.registry, Listener(config.metrics_host, config.metrics_port, *files), keyring) as url:
        _log.info("figures at %s", url)
        yield url


@asynccontextmanager
async def _tracing(tracer: Tracer) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if tracer is not UNTRACED:
            await asyncio.to_thread(tracer.close)


@asynccontextmanager
async def _listen(pairs: Pairs, config: VerifierConfig, keyring: Keyring | None, tracer: Tracer) -> AsyncIterator[int]:
    """The port of the service, which is drained when the block is left."""
    door = Door(keyring)
    server = grpc.aio.server(options=_options(config), interceptors=(DoorInterceptor(door, pairs.observer),))
    checks = HealthServicer()
    async with Readers() as readers:
        servicer = VerificationServicer(pairs, door, config, readers, tracer)
        server.add_generic_rpc_handlers((servicer.handler(), checks.handler()))
        port = _bind(server, config)
        await checks.set_serving()
        await server.start()
        _log.info("listening on %s", _address(config.host, port))
        grace_s = 0.0
        try:
            yield port
            grace_s = config.drain_grace_s
        finally:
            await checks.enter_graceful_shutdown()
            await pairs.drain(grace_s)
            await server.stop(FLUSH_S + servicer.leaving_s)


def _require_free(config: VerifierConfig) -> None:
    require_free(config.host, config.port)
    if config.metrics_port is not None:
        Listener(config.metrics_host, config.metrics_port).bind().close()


def _bind(server: Any, config: VerifierConfig) -> int:
    address = _address(config.host, config.port)
    require_free(config.host, config.port)  # gRPC would not say why, and would write a line of its own
    try:
        credentials = _credentials(config)
        return int(server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address))
    except OSError as error:
        raise unbound(address, error) from error
    except RuntimeError as error:
        raise ConfigurationError(f"cannot listen on {address}") from error


def _credentials(config: VerifierConfig) -> Any:
    """Of the server; None for plain text. Raises ``ConfigurationError``."""
    if config.tls_cert is None or config.tls_key is None:
        if config.keys is not None and not all(map(is_loopback, _hosts(config))):
            _log.warning("keys, and all that they guard, cross the network in plain text: set tls_cert and tls_key")
        return None
    pair, authorities = (config.tls_key.read_bytes(), config.tls_cert.read_bytes()), config.tls_client_ca
    if authorities is None:
        return grpc.ssl_server_credentials([pair])
    return grpc.ssl_server_credentials([pair], authorities.read_bytes(), require_client_auth=True)


def _hosts(config: VerifierConfig) -> tuple[str, ...]:
    """All addresses at which it is reached."""
    return (config.host,) if config.metrics_port is None else (config.host, config.metrics_host)


def _options(config: VerifierConfig) -> list[tuple[str, int]]:
    """A phone pings to keep its way through the network open: that is no abuse from ``PING_INTERVAL_MS`` on."""
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", PING_INTERVAL_MS),
        ("grpc.so_reuseport", 0),
        # Its probes are pings that a phone has to answer.
        ("grpc.http2.bdp_probe", 0),
    ]


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
