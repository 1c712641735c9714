"""Three verifiers on three nodes of a Ray cluster, one node killed under load: is a session lost, or a text changed?

    python -m benchmarks.failover [--quick] [--json FILE] [--fill PAGE]

The bundled pair, sampled, nothing emulated: ``outrider verifier --engine-pool ray`` in a process of its own, the device agent
in this one, all sessions at once. They write the same answers twice, undisturbed and with a node that dies once a quarter of
all tokens is final. The truth is plain decoding by the full model alone. A pause is the time between two final tokens.

Needs the extra ``ray``, Linux and root (for a network namespace); where one of them is missing it is left out, and says so.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from benchmarks.failover_cluster import INSIDE, Nodes, cluster, run_inside, why_not
from benchmarks.failover_pool import POLL_S, Death, Watch, pool
from benchmarks.report import Grid, add_arguments, publish
from device_agent.agent import DeviceAgent
from device_agent.build import build_agent
from device_agent.config import AgentConfig, GenerationSource
from device_agent.events import CommitEvent, CorrectEvent, DoneEvent, StateEvent
from device_agent.request import StreamRequest
from speculation.choice import choose
from speculation.engines.base import Chunk
from speculation.engines.package import load_pair
from speculation.engines.providers import Provider
from speculation.parameters import SamplingParameters

NUM_REPLICAS = 3
NUM_SESSIONS, NUM_TOKENS = 32, 128
NUM_SESSIONS_QUICK, NUM_TOKENS_QUICK = 6, 32
TEMPERATURE = 0.8
KILL_AT = 0.25
"""The share of all tokens that is final when the node dies."""
LIMIT_S = 240.0


@dataclass(slots=True)
class Session:
    """One answer as it came: when tokens became final, when a stream opened, whether the device ever was alone."""

    token_ids: tuple[int, ...] = ()
    verified_count: int = 0
    final_s: list[float] = field(default_factory=list)
    opened_s: list[float] = field(default_factory=list)
    num_offline: int = 0

    def longest_pause_s(self, around_s: float | None = None) -> float:
        """Between two tokens, of those pauses that hold a moment where one is given."""
        pauses = zip(self.final_s, self.final_s[1:], strict=False)
        return max((end - begin for begin, end in pauses if around_s is None or end >= around_s), default=0.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some times, in seconds."""

    num: int
    median_s: float
    p95_s: float
    max_s: float

    @classmethod
    def of(cls, times_s: Sequence[float]) -> Spread:
        if not times_s:
            return cls(0, 0.0, 0.0, 0.0)
        return cls(len(times_s), *(round(float(np.percentile(times_s, share)), 3) for share in (50, 95, 100)))

    def cells(self) -> list[str]:
        times = [f"{time_s:.2f}" if self.num else "" for time_s in (self.median_s, self.p95_s, self.max_s)]
        return [str(self.num), *times]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the table shows."""

    sessions: int
    moved: int
    lost: int
    equal: int
    equal_undisturbed: int
    offline: int
    spreads: dict[str, Spread]
    unlisted_after_s: float
    replaced_after_s: float


async def answer(agent: DeviceAgent, request: StreamRequest, session: Session) -> None:
    loop = asyncio.get_running_loop()
    async for event in agent.stream(request):
        match event:
            case CommitEvent() | CorrectEvent():
                session.final_s.append(loop.time())
                session.verified_count = event.commit_offset.tokens
            case StateEvent(reason="link"):
                session.opened_s.append(loop.time())
            case StateEvent(reason="offline" | "busy"):
                session.num_offline += 1
            case DoneEvent():
                session.token_ids, session.verified_count = event.token_ids, event.verified_count


async def kill_under_load(nodes: Nodes, watch: Watch, sessions: Sequence[Session], num_tokens: int) -> Death:
    """Kill a node once enough is final, and see what the pool makes of it."""
    listed = await watch.until_whole()
    name = nodes.find(list(listed.values()))
    assert name is not None, "every replica is on the head's node"
    while sum(s.verified_count for s in sessions) < KILL_AT * len(sessions) * num_tokens:  # noqa: ASYNC110 (a count)
        await asyncio.sleep(POLL_S)
    death = Death(asyncio.get_running_loop().time())
    nodes.kill(name)
    await watch.replacement(next(target for target, node in listed.items() if node == name), death)
    return death


async def both_runs(nodes: Nodes, requests: Sequence[StreamRequest]) -> tuple[list[Session], list[Session], Death]:
    """All sessions undisturbed, then with a death among them."""
    num_tokens = requests[0].max_tokens or 0
    async with asyncio.timeout(LIMIT_S), pool(nodes.address, NUM_REPLICAS, len(requests)) as url:
        watch = Watch(url, NUM_REPLICAS)
        config = AgentConfig(verifier=url, max_streams=len(requests), generation_defaults=GenerationSource.NONE)
        try:
            await watch.until_whole()
            async with build_agent(config) as agent:
                await write_all(agent, requests[:NUM_REPLICAS])
                calm = await write_all(agent, requests)
                shaken = [Session() for _ in requests]
                async with asyncio.TaskGroup() as tasks:
                    dying = tasks.create_task(kill_under_load(nodes, watch, shaken, num_tokens))
                    for request, session in zip(requests, shaken, strict=True):
                        tasks.create_task(answer(agent, request, session))
        finally:
            await watch.aclose()
    return calm, shaken, dying.result()


async def write_all(agent: DeviceAgent, requests: Sequence[StreamRequest]) -> list[Session]:
    sessions = [Session() for _ in requests]
    async with asyncio.TaskGroup() as tasks:
        for request, session in zip(requests, sessions, strict=True):
            tasks.create_task(answer(agent, request, session))
    return sessions


def plain_texts(requests: Sequence[StreamRequest]) -> list[tuple[int, ...]]:
    """What the full model writes alone, one token after the other: all answers at once, each with its own cache."""
    full = load_pair().full
    engine = full.engine("fp32", len(requests), 1, Provider.CPU)
    texts = [list(full.tokenizer.encode(request.prompt).ids) for request in requests]
    starts, new = [len(text) for text in texts], [list(text) for text in texts]
    parameters = [SamplingParameters(temperature=TEMPERATURE, seed=request.seed or 0) for request in requests]
    caches = [engine.open() for _ in requests]
    running = list(range(len(requests)))
    while running:
        logits = engine.extend([Chunk(caches[i], new[i], 1) for i in running])
        chosen = choose(logits, [len(texts[i]) for i in running], [parameters[i] for i in running]).token_ids
        for i, token_id in zip(running, map(int, chosen), strict=True):
            texts[i].append(token_id)
            new[i] = [token_id]
        running = [i for i in running if not _is_over(texts[i], starts[i], requests[i], full.end_token_ids)]
    return [tuple(text[start:]) for text, start in zip(texts, starts, strict=True)]


def _is_over(text: Sequence[int], start: int, request: StreamRequest, ends: Sequence[int]) -> bool:
    return len(text) - start >= (request.max_tokens or 0) or text[-1] in ends


def judge(truth: Sequence[tuple[int, ...]], calm: Sequence[Session], shaken: Sequence[Session], death: Death) -> Outcome:
    """Lost is a session without a whole answer that the full model wrote, equal one with the very text."""
    moved = [session for session in shaken if len(session.opened_s) > 1]
    stayed = [session for session in shaken if len(session.opened_s) <= 1 and session.final_s[-1] > death.at_s]
    spreads = {
        "pause of a session that moved": [session.longest_pause_s(death.at_s) for session in moved],
        "of it, until it was open elsewhere": [session.opened_s[1] - death.at_s for session in moved],
        "longest pause of a session that stayed": [session.longest_pause_s(death.at_s) for session in stayed],
        "longest pause, undisturbed": [session.longest_pause_s() for session in calm],
    }
    return Outcome(
        sessions=len(shaken),
        moved=len(moved),
        lost=sum(session.verified_count < len(text) for session, text in zip(shaken, truth, strict=True)),
        equal=sum(session.token_ids == text for session, text in zip(shaken, truth, strict=True)),
        equal_undisturbed=sum(session.token_ids == text for session, text in zip(calm, truth, strict=True)),
        offline=sum(bool(session.num_offline) for session in shaken),
        spreads={name: Spread.of(times_s) for name, times_s in spreads.items()},
        unlisted_after_s=round(death.unlisted_s - death.at_s, 2),
        replaced_after_s=round(death.replaced_s - death.at_s, 2),
    )


def grids(outcome: Outcome, num_tokens: int) -> list[Grid]:
    nodes = f"{NUM_REPLICAS} replicas on as many nodes, one node killed"
    title = f"Measured: {outcome.sessions} sessions of {num_tokens} tokens, {nodes}"
    columns = ["sessions", "moved", "lost", "texts equal", "undisturbed", "ever alone", "off the list after", "replaced after"]
    counts = [outcome.sessions, outcome.moved, outcome.lost, outcome.equal, outcome.equal_undisturbed, outcome.offline]
    row = [*map(str, counts), f"{outcome.unlisted_after_s:.2f} s", f"{outcome.replaced_after_s:.2f} s"]
    pauses = [[name, *spread.cells()] for name, spread in outcome.spreads.items()]
    return [Grid(title, columns, [row]), Grid("Pauses, seconds", ["time", "sessions", "median", "95 %", "largest"], pauses)]


def requests_of(num_sessions: int, num_tokens: int) -> list[StreamRequest]:
    prompts = [str(prompt["text"]) for prompt in load_pair().prompts]
    return [
        StreamRequest(prompts[number % len(prompts)], max_tokens=num_tokens, temperature=TEMPERATURE, seed=number + 1)
        for number in range(num_sessions)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        reason = why_not()
        if reason is not None:
            print(f"failover is left out: {reason}")
            return
        sys.exit(run_inside("benchmarks.failover", sys.argv[1:]))
    sizes = (NUM_SESSIONS_QUICK, NUM_TOKENS_QUICK) if arguments.quick else (NUM_SESSIONS, NUM_TOKENS)
    requests = requests_of(*sizes)
    truth = plain_texts(requests)
    with cluster(NUM_REPLICAS) as nodes:
        outcome = judge(truth, *asyncio.run(both_runs(nodes, requests)))
    publish(arguments, "failover", grids(outcome, sizes[1]), asdict(outcome))


if __name__ == "__main__":
    main()
