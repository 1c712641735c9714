"""Verifiers that die: production code on hosts that lose it, with all it held, and start another with the same model."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from cloud_verifier.companion import Companion
from cloud_verifier.config import VerifierConfig
from cloud_verifier.verification import Verifier
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.errors import LinkError
from speculation.links.base import Link
from speculation.links.memory import MemoryConnector
from tests.faults.hostile_link import Habits, HostileLink, Witness
from tests.faults.models import Models
from tests.faults.tables import Tracked

EXACT = SelfTest(True, "f" * 16, 0.0, ())
MOMENT_S = 1e-3


@dataclass(frozen=True, slots=True)
class Death:
    """A verifier dies once devices have heard so many messages since the last death; for so long nothing can be reached."""

    after_messages: int
    outage_s: float


@dataclass
class Host:
    """A verifier that runs, its engines, and the streams that lead to it."""

    verifier: Verifier
    engines: Sequence[Tracked]
    passes: asyncio.Task[None]
    links: list[HostileLink]


class Fleet:
    """Some hosts, and the hostile way to them: a ``Connector`` whose links end at any of them."""

    def __init__(
        self,
        models: Models,
        configs: Sequence[VerifierConfig],
        deaths: Sequence[Death],
        habits: Habits,
        seed: int,
        witness: Witness,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._models = models
        self._deaths = deque(deaths)
        self._habits = habits
        self._seed = seed
        self._witness = witness
        self._tasks = tasks
        self._rng = random.Random(f"{seed} fleet")
        self._num_heard = 0
        self._num_connects = 0
        self._reachable_s = 0.0
        self._configs = configs
        self._hosts = [self._start(config) for config in configs]

    async def connect(self) -> Link:
        """A stream to any of the hosts. Raises ``LinkError`` where there is none, or where the way to it fails."""
        self._num_connects += 1
        rng = random.Random(f"{self._seed} link {self._num_connects}")
        await asyncio.sleep(rng.expovariate(1 / self._habits.mean_delay_s))
        if asyncio.get_running_loop().time() < self._reachable_s or rng.random() < self._habits.refuse:
            self._witness.tally["connect refused"] += 1
            raise LinkError("no verifier can be reached")
        host = rng.choice(self._hosts)
        inner = await MemoryConnector(host.verifier).connect()
        link = HostileLink(inner, self._habits, rng, self._witness, self._tasks, lambda _: self._heard(host))
        host.links.append(link)
        return link

    async def aclose(self) -> None:
        """The hosts outlive the agent: ``settle`` ends them."""

    async def settle(self) -> None:
        """Wait for every old stream to be over, check that nothing is left of it, and end the verifiers."""
        for host in self._hosts:
            for link in host.links:
                await link.over()
        await asyncio.sleep(MOMENT_S)
        for host in self._hosts:
            host.verifier.stop()
            await host.passes
            assert host.verifier.num_sessions == 0, "a verifier still holds a session"
            assert not any(engine.open_caches for engine in host.engines), "a verifier still holds a cache"
            self._count(host.verifier)

    def _start(self, config: VerifierConfig) -> Host:
        engines, companion = [self._models.full()], None
        if config.draft_length:
            engines.append(self._models.companion())
            companion = Companion(EngineRunner(engines[1]), config.draft_length, config.max_rows)
        verifier = Verifier(EngineRunner(engines[0]), self._models.facts.identity, EXACT, config, companion)
        return Host(verifier, engines, self._tasks.create_task(verifier.run()), [])

    def _count(self, verifier: Verifier) -> None:
        self._witness.tally["accepted drafts of the verifier's own"] += verifier.statistics.own_accepted

    def _heard(self, host: Host) -> None:
        self._num_heard += 1
        if self._deaths and self._num_heard >= self._deaths[0].after_messages:
            self._num_heard = 0
            self._lose(host, self._deaths.popleft())

    def _lose(self, host: Host, death: Death) -> None:
        """The host that was heard last loses its verifier, in the middle of whatever it does."""
        if host not in self._hosts:
            return
        self._witness.tally["verifier died"] += 1
        self._witness.tally["session lost by a death"] += host.verifier.num_sessions
        self._reachable_s = asyncio.get_running_loop().time() + death.outage_s
        for link in host.links:
            link.lose_verifier()
        host.passes.cancel()
        for engine in host.engines:
            engine.drop()
        self._count(host.verifier)
        place = self._hosts.index(host)
        self._hosts[place] = self._start(self._configs[place])
