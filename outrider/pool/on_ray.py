"""Replicas as actors on Ray, which places them and starts them again where their process or machine dies. Needs an extra.

No token passes through Ray: devices call each replica's own server. Ray is told of the configuration and asked for addresses.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel, build_engine
from outrider.pool.actor import ReplicaActor
from outrider.pool.members import Member, Replica
from outrider.running import choose_fast
from speculation.engines.sharing import share_interpreter, share_processor
from speculation.errors import ConfigurationError, LinkError, OutriderError
from speculation.heap import freeze_heap

NAMESPACE = "outrider"
FAST_HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 300,
    "health_check_timeout_ms": 300,
    "health_check_failure_threshold": 3,
}
"""Of a cluster that is started here: a machine that died is known after about a second, with Ray's defaults after 15."""


def require_ray() -> Any:
    """The library. Raises ``ConfigurationError`` where the extra is not installed."""
    # Written, not read, and before the import: Ray has no other switch for a process that may start a cluster.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # noqa: TID251
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError('engine_pool ray needs the extra ray: pip install "outrider[ray]"') from error
    return ray


class RayReplica:
    """A replica that Ray runs. What Ray says of it becomes an error of the tree."""

    def __init__(self, ray: Any, actor: Any, number: int) -> None:
        self.number = number
        self._ray = ray
        self._actor = actor
        self._over: asyncio.Future[Any] | None = None
        self._attempt = 0

    async def start(self) -> Member:
        self._attempt += 1
        self._over = asyncio.wrap_future(self._actor.serve.remote(self._attempt).future())
        told = asyncio.wrap_future(self._actor.told.remote(self._attempt).future())
        await asyncio.wait((told, self._over), return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            # An actor that dies between the two calls comes back, and would wait for an attempt that it knows nothing of.
            await self.over()
        target, node = await self._told(told)
        return Member(self.number, target, node)

    async def over(self) -> None:
        assert self._over is not None, "it was not started"
        await self._told(asyncio.shield(self._over))

    async def drain(self) -> None:
        await self._told(self._actor.drain.remote())
        if self._over is not None:
            await self.over()

    def kill(self) -> None:
        self._ray.kill(self._actor)

    async def _told(self, answer: Any) -> Any:
        try:
            return await answer
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OutriderError):
                raise error.cause from None
            raise LinkError(f"it failed: {error.cause!r}") from error
        except self._ray.exceptions.RayError as error:
            raise LinkError(_first_line(error)) from error


@asynccontextmanager
async def replicas_on_ray(config: VerifierConfig, build: Callable[[], FullModel] | None = None) -> AsyncIterator[list[Replica]]:
    """``config.replicas`` actors, spread over the machines of the cluster at ``config.ray_address``; where that is None, over
    those of one that is started here and ends with the block.

    Raises ``ConfigurationError`` where Ray is not installed or the cluster cannot be reached.
    """
    ray = require_ray()
    try:
        yield await asyncio.to_thread(_start, ray, config, build)
    finally:
        await asyncio.to_thread(ray.shutdown)


def _start(ray: Any, config: VerifierConfig, build: Callable[[], FullModel] | None) -> list[Replica]:
    """Takes seconds, in which Ray waits for its cluster and sends it the code."""
    _join(ray, config.ray_address)
    kind = ray.remote(_Actor)
    options = {"num_cpus": config.replica_cpus, "max_restarts": -1, "scheduling_strategy": "SPREAD"}
    return [
        RayReplica(ray, kind.options(name=f"replica-{number}", **options).remote(number, config, build), number)
        for number in range(config.replicas)
    ]


def _join(ray: Any, address: str | None) -> None:
    own = {"include_dashboard": False, "_system_config": FAST_HEALTH_CHECKS} if address is None else {}
    try:
        ray.init(address or "local", namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        where = f"at {address}" if address else "of this machine"
        raise ConfigurationError(f"the Ray cluster {where} cannot be used: {_first_line(error)}") from error


class _Actor(ReplicaActor):
    """The replica, with the name and the address of the machine that Ray has put it on."""

    def __init__(self, number: int, config: VerifierConfig, build: Callable[[], FullModel] | None) -> None:
        import ray

        share_interpreter()
        share_processor()
        choose_fast()
        loaded = partial(_loaded, build or partial(build_engine, config))
        super().__init__(number, config, ray.util.get_node_ip_address(), loaded)
        self._node = ray.get_runtime_context().get_node_id()[:8]

    async def told(self, attempt: int) -> tuple[str, str]:
        return await self.target(attempt), self._node


def _loaded(build: Callable[[], FullModel]) -> FullModel:
    model = build()
    freeze_heap()
    return model


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
