"""The production agent and verifier for the thrift benchmark: settings to try, texts to try them on, and the search.

Everything is emulated: virtual clock, inline engines without weights, a link of pure delay, one session at a time. A text is
the synthetic process at acceptance 0.8, or the real pair from its committed traces. Settings are scouted on one draw of it
(a seed, a trace); who may be on the front is then measured on others, so that luck in the scouting buys nothing.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from benchmarks import trace_file
from benchmarks.first_order import Figures, Times
from benchmarks.grid_production import PROMPT, Setup, delay_line, stop_and_wait
from benchmarks.plain_texts import check
from benchmarks.thrift_front import Point, shortlist
from benchmarks.trace_replay import Replay, ReplayDraft, ReplayFull, StepCost, Use
from benchmarks.virtual import last_event
from cloud_verifier.config import VerifierConfig
from cloud_verifier.patience import NEVER, PatienceSetting
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.events import DoneEvent
from device_agent.pair import PairFacts
from device_agent.request import StreamRequest
from outrider.planning import synthetic
from outrider.planning.synthetic import Acceptance, DraftEngine, FullEngine
from speculation.engines.base import Engine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.links.memory import MemoryConnector
from speculation.shaping import virtual_time
from speculation.shaping.link import ShapedConnector

ACCEPTANCE = 0.8
SYNTHETIC, PAIR_GREEDY, PAIR_SAMPLED = f"acceptance {ACCEPTANCE:g}", "pair, temperature 0", "pair, temperature 0.8"
TEXTS = (SYNTHETIC, PAIR_GREEDY, PAIR_SAMPLED)
TEMPERATURES = {PAIR_GREEDY: 0.0, PAIR_SAMPLED: 0.8}

POLICIES = {
    "ahead": AgentConfig(drafting="ahead"),
    "two branches": AgentConfig(drafting="second-branch", draft_width=2),
    "four branches": AgentConfig(drafting="second-branch", draft_width=4),
    "adaptive": AgentConfig(drafting="adaptive"),
}
FLOORED = AgentConfig(drafting="second-branch", draft_width=4)
"""What the settings with a floor of ``pass`` are made of."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Times, and whose text (one of ``TEXTS``)."""

    times: Times
    text: str


@dataclass(frozen=True, slots=True)
class Search:
    """What is tried and how much of it is run.

    ``patiences`` are in passes, besides 0 and never. ``floors`` are those of the ``pass`` flag: each is tried with
    ``floored_gathers`` and a patience of never. A text is ``num_draws`` draws of ``num_tokens`` tokens where it is synthetic,
    else ``num_traces`` of their own length; ``num_scout_tokens`` bounds both in the scouting. ``slack``: see ``shortlist``.
    """

    policies: tuple[str, ...] = ("four branches", "adaptive")
    patiences: tuple[float, ...] = (1.0,)
    gathers: tuple[int, ...] = (1, 2, 4)
    floors: tuple[float, ...] = (0.05, 0.15, 0.3)
    floored_gathers: tuple[int, ...] = (2, 3, 4, 5, 6, 8, 12)
    lengths: tuple[int, ...] = (*range(1, 9), 12, 16)
    num_scout_tokens: int = 100
    num_tokens: int = 300
    num_draws: int = 1
    num_traces: int = 4
    slack: float = 0.1


@dataclass(frozen=True, slots=True)
class Job:
    """Engines, and what is asked of them one after the other. ``warm_up`` is the prompt that warms the connection."""

    facts: PairFacts
    draft: Engine
    full: Engine
    warm_up: str
    requests: Sequence[StreamRequest]


@dataclass(slots=True)
class Total:
    """Sums over answers."""

    tokens: int = 0
    passes: int = 0
    seconds: float = 0.0

    @property
    def figures(self) -> Figures:
        return Figures(self.tokens / self.seconds, self.passes / self.tokens)


@dataclass(frozen=True, slots=True)
class Row:
    """One cell: every point that was measured, and how much was scouted. Fronts are made of ``ours`` and ``theirs``."""

    cell: Cell
    ours: Sequence[Point]
    theirs: Sequence[Point]
    num_scouted: int
    made_up_share: float = 0.0
    """Of the draft's rows in the runs of ``ours``, those behind a prefix that no trace holds."""


def ours(search: Search, pass_ms: float) -> dict[str, Setup]:
    """The settings of patience, gathering and policy, by name. At patience 0 there is nothing to gather for."""
    found = {}
    for policy in search.policies:
        agent = POLICIES[policy]
        found[f"{policy}, patience 0"] = Setup(agent, VerifierConfig(patience=0.0))
        for title, patience in _patiences(search, pass_ms).items():
            for gather in search.gathers:
                name = f"{policy}, patience {title}, gather {gather}"
                found[name] = Setup(agent, VerifierConfig(patience=patience, gather=gather))
    return found | _floored(search)


def _floored(search: Search) -> dict[str, Setup]:
    """Settings whose device ends the verifier's waiting by its confidence."""
    return {
        f"four branches, pass below {floor:g}, gather {gather}": Setup(
            FLOORED.model_copy(update={"draft_pass_floor": floor}), VerifierConfig(patience=NEVER, gather=gather)
        )
        for floor in search.floors
        for gather in search.floored_gathers
    }


def theirs(search: Search) -> dict[str, Setup]:
    """Stop-and-wait, by name, at every length."""
    return {f"{length} drafts": stop_and_wait(length) for length in search.lengths}


def measure(cell: Cell, search: Search) -> Row:
    """All of one cell; depends on nothing but its arguments."""
    settings, waiting = ours(search, cell.times.pass_ms), theirs(search)
    scouted = [Point(name, reached(setup, cell, scouting(cell, search))) for name, setup in settings.items()]
    names = [point.name for point in shortlist(scouted, search.slack)]
    use = Use()
    points = []
    for name in names:
        jobs = list(measuring(cell, search))
        points.append(Point(name, reached(settings[name], cell, jobs)))
        _add_use(use, jobs)
    baseline = [Point(name, reached(setup, cell, measuring(cell, search))) for name, setup in waiting.items()]
    return Row(cell, points, baseline, len(scouted), use.made_up_share)


def scouting(cell: Cell, search: Search) -> Iterator[Job]:
    """The first draw of a cell's text."""
    return _jobs(cell, [0], search.num_scout_tokens)


def measuring(cell: Cell, search: Search) -> Iterator[Job]:
    """The draws that were not scouted on."""
    num_draws = search.num_draws if cell.text == SYNTHETIC else search.num_traces
    return _jobs(cell, range(1, num_draws + 1), search.num_tokens)


def reached(setup: Setup, cell: Cell, jobs: Iterable[Job]) -> Figures:
    """What the production code reaches over some jobs. Rates count from a request to the end of its last pass."""
    total = Total()
    for job in jobs:
        virtual_time.run(_run(setup, cell.times, job, total))
    return total.figures


def _add_use(use: Use, jobs: Iterable[Job]) -> None:
    for job in jobs:
        if isinstance(job.draft, ReplayDraft):
            use.num_rows += job.draft.use.num_rows
            use.num_made_up += job.draft.use.num_made_up


def _patiences(search: Search, pass_ms: float) -> dict[str, PatienceSetting]:
    waits: dict[str, PatienceSetting] = {f"{passes:g} passes": passes * pass_ms for passes in search.patiences}
    return waits | {NEVER: NEVER}


def _jobs(cell: Cell, draws: Sequence[int], num_tokens: int) -> Iterator[Job]:
    if cell.text == SYNTHETIC:
        return (_synthetic(cell.times, seed, num_tokens) for seed in draws)
    return iter([_replayed(cell, draws, num_tokens)])


def _synthetic(times: Times, seed: int, num_tokens: int) -> Job:
    acceptance, context = Acceptance(ACCEPTANCE), num_tokens + 1
    return Job(
        facts=synthetic.facts(context),
        draft=DraftEngine(acceptance, seed, context, times.draft_ms / 1000),
        full=FullEngine(acceptance, seed, context, times.pass_ms / 1000),
        warm_up=PROMPT,
        requests=[StreamRequest(PROMPT, max_tokens=num_tokens)],
    )


def _replayed(cell: Cell, draws: Sequence[int], num_tokens: int) -> Job:
    replay = _replay()
    indices = replay.indices(TEMPERATURES[cell.text])
    whole = [replay.request(indices[draw]) for draw in draws]
    requests = [replace(request, max_tokens=min(request.max_tokens or num_tokens, num_tokens)) for request in whole]
    return Job(
        facts=replay.facts,
        draft=ReplayDraft(replay, StepCost(cell.times.draft_ms / 1000)),
        full=ReplayFull(replay, StepCost(cell.times.pass_ms / 1000)),
        warm_up=synthetic.decode([indices[draws[0]]]),
        requests=requests,
    )


@functools.cache
def _replay() -> Replay:
    return Replay(trace_file.load())


async def _run(setup: Setup, times: Times, job: Job, total: Total) -> None:
    now_s, answers = asyncio.get_running_loop().time, list[DoneEvent]()
    async with _stack(setup, times, job) as agent:
        for request in job.requests:
            began_s = now_s()
            done = await last_event(agent, request)
            # The end is known half a round trip after the last pass.
            total.seconds += now_s() - began_s - times.round_trip_ms / 2000
            total.tokens += len(done.token_ids)
            total.passes += done.usage["passes"]
            answers.append(done)
    check(job.full, answers)


@asynccontextmanager
async def _stack(setup: Setup, times: Times, job: Job) -> AsyncIterator[DeviceAgent]:
    """Agent and verifier with a delay line between them; the connection is warm."""
    verifier = Verifier(EngineRunner(job.full), job.facts.identity, SelfTest(True, "f" * 16, 0.0, ()), setup.verifier)
    connector = ShapedConnector(MemoryConnector(verifier), delay_line(times.round_trip_ms))
    agent = DeviceAgent(job.facts, EngineRunner(job.draft), connector, setup.agent)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(verifier.run())
        async with agent:
            await last_event(agent, StreamRequest(job.warm_up, max_tokens=1))
            yield agent
        verifier.stop()
