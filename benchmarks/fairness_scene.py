"""One verifier with tenants: well-behaved ones whose phones draft, and one that may be anything. Production, virtual clock.

The machine, the phones and the network are those of ``capacity_settings.py``. Each well-behaved tenant writes one answer after
the other on one device. An abuser has as many sessions as its key allows, next door to the verifier, and sends a long chain of
drafts behind every verdict, far beyond what can agree: tokens drawn by hash, which are wrong but by chance.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from statistics import mean

from benchmarks.capacity_scene import Metered
from benchmarks.capacity_settings import ACCEPTANCE, KEY_TOKENS, HeldCosts, full_cost, phone_cost
from cloud_verifier.config import VerifierConfig
from cloud_verifier.costs import PassCosts
from cloud_verifier.live import LiveSession
from cloud_verifier.rounds import Share
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.events import CommitEvent, CorrectEvent, ErrorEvent
from device_agent.request import Mode
from outrider.planning.scene import PROVED
from outrider.planning.sources import Synthetic
from outrider.planning.synthetic import VOCABULARY, Acceptance, encode
from speculation.engines.base import Engine
from speculation.engines.runner import EngineRunner
from speculation.errors import SimulationError
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Draft, Node, Open, Verdict
from speculation.protocol.verifier import Plan
from speculation.shaping import profiles, virtual_time
from speculation.shaping.engine import ShapedEngine
from speculation.shaping.link import ShapedConnector
from speculation.shaping.profiles import DEFAULT_NETWORK
from speculation.tenants import Limits, Tenant

ODD_ONE = "the odd one"
START_S = 0.25
NO_LIMITS = Limits()
ABUSERS_TOKENS = 512
"""What an abuser asks for at once: near the end of a short answer there is no room for long drafts."""


class Guest(StrEnum):
    """Who is there beside the well-behaved tenants."""

    NOBODY = "nobody"
    EQUAL = "one more like the others"
    MANY = "as many sessions, well-behaved"
    ABUSER = "an abuser"


@dataclass(frozen=True, slots=True)
class Party:
    """``num_tenants`` of one device each, and a guest with up to ``num_sessions``. Each well-behaved device writes
    ``num_answers`` of ``num_tokens``, after one that does not count; the guest goes on for as long as they do. ``chain`` is
    the length of an abuser's drafts. ``is_priced``: the verifier knows what a pass costs, and runs the drafts that pay."""

    guest: Guest
    num_tenants: int
    num_sessions: int
    max_rows: int
    num_answers: int
    num_tokens: int
    chain: int = 128
    is_priced: bool = False

    @property
    def num_odd_sessions(self) -> int:
        return {Guest.NOBODY: 0, Guest.EQUAL: 1}.get(self.guest, self.num_sessions)

    @property
    def most_sessions(self) -> int:
        """Of any party with so many tenants."""
        return self.num_tenants + self.num_sessions


@dataclass(frozen=True, slots=True)
class Felt:
    """What the well-behaved felt: milliseconds to a first final token since the request, and between one final token and the
    next. And whose rows the verifier ran, how many others went without (``displaced``), and how long its passes were."""

    first_ms: Sequence[float]
    between_ms: Sequence[float]
    rows: dict[str, int]
    displaced: int
    pass_ms: float


def run(party: Party) -> Felt:
    """Raises ``SimulationError`` where an answer of a well-behaved tenant does not end well."""
    return virtual_time.run(_run(party))


class CountingVerifier(Verifier):
    """The verifier, and whose rows it ran."""

    def __init__(
        self, runner: EngineRunner[Engine], source: Synthetic, config: VerifierConfig, costs: PassCosts | None
    ) -> None:
        super().__init__(runner, source.identity, PROVED, config, costs=costs)
        self.rows: Counter[str] = Counter()
        self.displaced = 0
        self._plain = self.rounds._share_out
        self.rounds._share_out = self._share_out  # type: ignore[method-assign]

    def _share_out(self, ready: list[tuple[LiveSession, Plan]]) -> list[Share]:
        wanted, given = Counter[str](), Counter[str]()
        for live, plan in ready:
            wanted[live.account.tenant.name] += live.num_uncached + len(plan.token_ids)
        shares = self._plain(ready)
        for share in shares:
            given[share.live.account.tenant.name] += len(share.entry.token_ids)
        self.rows += given
        self.displaced += displaced(wanted, given)
        return shares


def displaced(wanted: Mapping[str, int], given: Mapping[str, int]) -> int:
    """Rows of a pass that tenants went without while the odd one had more than they; one that a division leaves over is not
    counted."""
    most = given.get(ODD_ONE, 0) - 1
    return sum(wanted[name] - given.get(name, 0) for name in wanted if given.get(name, 0) < min(wanted[name], most))


@dataclass(frozen=True, slots=True)
class _Door:
    """The verifier as one tenant sees it."""

    verifier: Verifier
    tenant: Tenant

    def attach(self, message: Open) -> LiveSession:
        return self.verifier.attach(message, self.tenant)


@dataclass(frozen=True, slots=True)
class _Hall:
    """What all have in common."""

    party: Party
    source: Synthetic
    verifier: CountingVerifier
    first_ms: list[float] = field(default_factory=list)
    between_ms: list[float] = field(default_factory=list)

    def connector(self, tenant: str, limits: Limits = NO_LIMITS) -> MemoryConnector:
        """The way in for one tenant."""
        return MemoryConnector(_Door(self.verifier, Tenant(tenant, limits)))


async def _run(party: Party) -> Felt:
    engine = Metered(_source(party).full_engine(party.most_sessions), full_cost())
    runner = EngineRunner[Engine](engine)
    costs = HeldCosts(full_cost()) if party.is_priced else None
    hall = _Hall(party, _source(party), CountingVerifier(runner, _source(party), _config(party), costs))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hall.verifier.run())
        odd = [tasks.create_task(_visit(hall, number)) for number in range(party.num_odd_sessions)]
        async with asyncio.TaskGroup() as tenants:
            for number in range(party.num_tenants):
                tenants.create_task(_behave(hall, f"tenant {number}", number, party.num_answers + 1))
        for task in odd:
            task.cancel()
        hall.verifier.stop()
    passes_ms = [1000 * took_s for _, took_s, _ in engine.spans]
    return Felt(hall.first_ms, hall.between_ms, dict(hall.verifier.rows), hall.verifier.displaced, mean(passes_ms))


def _source(party: Party) -> Synthetic:
    return Synthetic(Acceptance(ACCEPTANCE), KEY_TOKENS + ABUSERS_TOKENS + 1, KEY_TOKENS)


def _config(party: Party) -> VerifierConfig:
    sessions = party.most_sessions
    return VerifierConfig(num_slots=sessions, max_sessions=sessions, max_rows=party.max_rows, patience=0.0)


async def _visit(hall: _Hall, number: int) -> None:
    """One session of the odd one, again and again."""
    if hall.party.guest is Guest.ABUSER:
        await _abuse(hall, number)
    else:
        await _behave(hall, ODD_ONE, hall.party.num_tenants + number, None)


async def _behave(hall: _Hall, tenant: str, number: int, num_answers: int | None) -> None:
    """A phone that asks for one answer after the other; None for no end. Of the tenants' all but the first count."""
    await asyncio.sleep(START_S * number / hall.party.most_sessions)
    engine = ShapedEngine(hall.source.draft_engine(), phone_cost())
    connector = ShapedConnector(hall.connector(tenant), profiles.network(DEFAULT_NETWORK), number)
    async with DeviceAgent(hall.source.facts(), EngineRunner(engine), connector, AgentConfig()) as agent:
        for answer in itertools.count():
            if answer == num_answers:
                return
            first_ms, between_ms = await _answer(hall, agent, number + answer * hall.party.most_sessions)
            if answer and tenant != ODD_ONE:
                hall.first_ms.append(first_ms)
                hall.between_ms.extend(between_ms)


async def _answer(hall: _Hall, agent: DeviceAgent, number: int) -> tuple[float, list[float]]:
    """Milliseconds to the first final token and between the others. Tokens of one verdict come at the same time."""
    loop, waits_ms, num_final = asyncio.get_running_loop(), list[float](), 0
    last_s = loop.time()
    request = hall.source.request(number, hall.party.num_tokens, Mode.COLLABORATE)
    async with contextlib.aclosing(agent.stream(request)) as events:
        async for event in events:
            if isinstance(event, CommitEvent | CorrectEvent):
                count, num_final = event.commit_offset.tokens - num_final, event.commit_offset.tokens
                waits_ms += [1000 * (loop.time() - last_s)] + [0.0] * (count - 1)
                last_s = loop.time()
            elif isinstance(event, ErrorEvent):
                raise SimulationError(f"the stream ended with an error: {event.error}")
    return waits_ms[0], waits_ms[1:]


async def _abuse(hall: _Hall, number: int) -> None:
    connector = hall.connector(ODD_ONE, Limits(max_sessions=hall.party.num_sessions))
    prefix = tuple(encode(hall.source.request(number, 1, Mode.CLOUD).prompt))
    for answer in itertools.count():
        link = await connector.connect()
        session, parameters = f"{ODD_ONE} {number} {answer}", SamplingParameters()
        await link.send(Open(session, 1, hall.source.identity, prefix, len(prefix), parameters, ABUSERS_TOKENS))
        next_node = 1
        while (message := await link.receive()) is not None:
            if isinstance(message, Verdict):
                await link.send(chain(next_node, message.end, hall.party.chain))
                next_node += hall.party.chain
        await link.aclose()


def chain(first: int, known: int, length: int) -> Draft:
    """Drafts that hang one off the other behind ``known`` final tokens, drawn by hash."""
    nodes = []
    for number in range(first, first + length):
        token_id = int.from_bytes(blake2b(f"{number} {known}".encode(), digest_size=8).digest()) % VOCABULARY
        nodes.append(Node(number, number - 1 if number > first else 0, token_id, known if number == first else 0))
    return Draft(tuple(nodes), known)
