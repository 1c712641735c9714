"""``outrider verifier --engine-pool ray``: the head of a pool, from its start to the drain of all that it started."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel
from cloud_verifier.server import stop_on_signal
from outrider.pool.head import listening
from outrider.pool.members import Members, following
from outrider.pool.on_ray import replicas_on_ray
from speculation.listening import require_free

MARGIN_S = 8.0
"""What the drain of all replicas may take beyond the grace of each: what was said has to leave, on ticks of up to a second."""


@asynccontextmanager
async def serve(config: VerifierConfig, build: Callable[[], FullModel] | None = None) -> AsyncIterator[tuple[str, Members]]:
    """A pool that serves while the block runs; yields the URL of its list, and who is in it. Leaving the block drains all.

    Raises ``ConfigurationError`` (no Ray, no cluster, an address that cannot be bound), and what a verifier raises that cannot
    start.
    """
    require_free(config.host, config.port)  # before there is a cluster, and replicas that load models
    members = Members()
    async with (
        replicas_on_ray(config, build) as replicas,
        listening(members, config) as url,  # to the end of the drain, for to agents a list that is gone is the last they had
        following(members, replicas, config.drain_grace_s + MARGIN_S),
    ):
        yield url, members


async def run(config: VerifierConfig, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once. ``say`` hears where the list is."""
    async with serve(config) as (url, _):
        stop = stop_on_signal()
        say(f"verifiers on {url}")
        await stop.wait()
