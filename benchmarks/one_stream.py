"""Where one stream's CPU time goes, unshaped: forwards, choices, the event loop, gRPC, HTTP events; and what is ours of it.

CPU time, not wall time: it cares little who else uses the machine. Forwards and choices are read from the clock of the thread
that runs them. The event loop's share is the process's time less those, with an in-memory link; what gRPC and HTTP add is the
difference to the same answers without them (so noisy by a few percent of the whole). "Ours" is all but the forwards and the
transport. The clock is read six times a token and more, and a reading is a call of the system: what that takes is taken off
each part, as far as it lies in it (``without_clock``). In collaboration most drafts of a slow pair are thrown away, and their
cost is in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from platform import python_implementation, python_version
from statistics import median
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

import cloud_verifier.server
import device_agent.server
from benchmarks.clock import reading_s
from benchmarks.report import Grid, add_arguments, publish
from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel, build_engine
from device_agent.agent import DeviceAgent
from device_agent.build import draft_engine, facts_of
from device_agent.config import AgentConfig
from device_agent.events import Event
from device_agent.request import Mode, StreamRequest
from outrider.client import Client, Options
from outrider.planning.scene import last_event as last_of
from speculation.compiled import use_compiled
from speculation.engines.base import CacheId, Chunk, Engine, EngineDescription
from speculation.engines.package import load_pair
from speculation.engines.runner import EngineRunner, JobThread
from speculation.engines.sharing import share_interpreter
from speculation.links.base import Connector
from speculation.links.grpc import GrpcConnector
from speculation.links.memory import MemoryConnector
from speculation.shaping.profiles import UNSHAPED

NUM_TOKENS, NUM_PROMPTS, ROUNDS, HAND_OVERS = 128, 6, 7, 300
NUM_TOKENS_QUICK = 12
SEED = 1
SAMPLINGS = {"greedy": (0.0, 1.0), "top-p 0.9": (0.8, 0.9)}
"""Temperature and top-p."""
GOALS_US = {"greedy": 150, "top-p 0.9": 400}
WAYS = {"memory": (False, False), "grpc": (True, False), "http": (False, True)}
"""Over gRPC, and over HTTP."""
S = TypeVar("S")
T = TypeVar("T")
Answer = Callable[[StreamRequest], AsyncIterator[Event]]


class TimedEngine:
    """Adds up the CPU seconds of an engine's forwards, and counts them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.forward_s, self.num_forwards = 0.0, 0

    @property
    def description(self) -> EngineDescription:
        return self._engine.description

    def open(self) -> CacheId:
        return self._engine.open()

    def length(self, cache: CacheId) -> int:
        return self._engine.length(cache)

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        began = time.thread_time()
        logits = self._engine.extend(chunks)
        self.forward_s += time.thread_time() - began
        self.num_forwards += 1
        return logits

    def truncate(self, cache: CacheId, length: int) -> None:
        self._engine.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        self._engine.close(cache)


class TimedRunner(EngineRunner[Engine]):
    """Adds up the CPU seconds of jobs and of what leads from one to the next: forwards, choices and what is around them."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._timed = TimedEngine(engine)
        self._job_s, self._num_pieces = 0.0, 0
        super().__init__(self._timed, JobThread(name))

    async def run(
        self,
        job: Callable[[Engine], T],
        abandon: asyncio.Event | None = None,
        follow: Callable[[T], Callable[[Engine], T] | None] | None = None,
    ) -> T:
        return await super().run(self._timed_job(job), abandon, None if follow is None else partial(self._next, follow))

    def _next(self, follow: Callable[[T], Callable[[Engine], T] | None], result: T) -> Callable[[Engine], T] | None:
        following = self._in_time(follow, result)
        return None if following is None else self._timed_job(following)

    def _timed_job(self, job: Callable[[Engine], T]) -> Callable[[Engine], T]:
        return lambda engine: self._in_time(job, engine)

    def _in_time(self, function: Callable[[S], T], argument: S) -> T:
        began = time.thread_time()
        try:
            return function(argument)
        finally:
            self._job_s += time.thread_time() - began
            self._num_pieces += 1

    def read(self) -> NDArray[np.float64]:
        """CPU seconds of the forwards and of what was around them, readings of the clock included; how many forwards there
        were, and how many pieces around them."""
        timed = self._timed
        return np.array([timed.forward_s, self._job_s - timed.forward_s, timed.num_forwards, self._num_pieces])


def without_clock(total_s: float, read: NDArray[np.float64], reading_s: float) -> tuple[float, float, float]:
    """Of ``total_s``, in which a runner's ``read`` was spent: forwards, what is around them, and the rest, without the clock.

    What two readings bound holds one, of each a part; the other parts lie in what is around it. So a forward's are one in it
    and one in its piece, a piece's one in it and one in the rest.
    """
    forward_s, around_s, num_forwards, num_pieces = (float(x) for x in read)
    rest_s = total_s - forward_s - around_s - num_pieces * reading_s
    return forward_s - num_forwards * reading_s, around_s - (num_forwards + num_pieces) * reading_s, rest_s


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds a final token."""

    draft_forward: float
    draft_choice: float
    full_forward: float
    full_choice: float
    rest: float

    @property
    def ours(self) -> float:
        return self.draft_choice + self.full_choice + self.rest


class Stage:
    """A verifier and an agent whose engines are timed, joined by an in-memory link or by gRPC."""

    def __init__(self, full: FullModel) -> None:
        self.full = full
        self.pair = load_pair()

    @asynccontextmanager
    async def agent(self, over_grpc: bool) -> AsyncIterator[tuple[DeviceAgent, AgentConfig, TimedRunner, TimedRunner]]:
        async with AsyncExitStack() as stack:
            passes = TimedRunner(self.full.engine, "full-model")
            stack.callback(passes.shutdown)
            serving = cloud_verifier.server.serve(
                VerifierConfig(port=0, cloud=UNSHAPED), engine_runner=passes, full_model=self.full
            )
            running = await stack.enter_async_context(serving)
            config = AgentConfig(port=0, verifier=running.target)
            drafts = TimedRunner(draft_engine(self.pair.draft, config), "draft-model")
            connector: Connector = GrpcConnector(running.target, 5.0) if over_grpc else MemoryConnector(running.verifier)
            yield DeviceAgent(facts_of(self.pair, drafts.engine), drafts, connector, config), config, drafts, passes

    async def cost(self, requests: Sequence[StreamRequest], over_grpc: bool, over_http: bool) -> Cost:
        async with self.agent(over_grpc) as (agent, config, drafts, passes), AsyncExitStack() as stack:
            if over_http:
                url = (await stack.enter_async_context(device_agent.server.serve(config, agent=agent))).url
                client = await stack.enter_async_context(Client(url))
                answer: Answer = partial(over_client, client)
            else:
                await stack.enter_async_context(agent)
                answer = agent.stream
            await last_of(answer(requests[0]))
            clock_s = reading_s()
            before, began = (drafts.read(), passes.read()), time.process_time()
            tokens = 0
            for request in requests:
                tokens += len((await last_of(answer(request))).token_ids)
            total_s = time.process_time() - began
            drafting = without_clock(total_s, drafts.read() - before[0], clock_s)
            *passing, rest_s = without_clock(drafting[-1], passes.read() - before[1], clock_s)
        return Cost(*(1e6 * seconds / tokens for seconds in (*drafting[:-1], *passing, rest_s)))


def over_client(client: Client, request: StreamRequest) -> AsyncIterator[Event]:
    """The same over HTTP. The client's own work is in the process's time too, and so in the difference."""
    asked = request.parameters(SEED)
    options: Options = {
        "max_tokens": request.max_tokens or NUM_TOKENS,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "seed": SEED,
        "mode": request.mode.value,
    }
    return client.stream(request.prompt, **options)


def middle(costs: Sequence[Cost]) -> Cost:
    return Cost(*(median(getattr(c, name) for c in costs) for name in Cost.__slots__))


Costs = dict[str, list[Cost]]
"""By the way to the verifier and to the client, of every round."""


def measure(full: FullModel, is_quick: bool) -> dict[str, Costs]:
    """CPU microseconds a final token, by what is asked for, which takes turns: a slow minute of the machine is everybody's.

    The short form takes either sampling once, and either mode.
    """
    stage, rounds = Stage(full), 1 if is_quick else ROUNDS
    num_tokens, num_prompts = (NUM_TOKENS_QUICK, 1) if is_quick else (NUM_TOKENS, NUM_PROMPTS)
    prompts = [str(p["text"]) for p in stage.pair.prompts[:num_prompts]]
    cells = [(sampling, mode) for sampling in SAMPLINGS for mode in (Mode.CLOUD, Mode.COLLABORATE)]
    cells = cells[1:3] if is_quick else cells
    found: dict[str, Costs] = {f"{sampling}, {mode.value}": {way: [] for way in WAYS} for sampling, mode in cells}
    for _ in track(range(rounds), "one stream", transient=True):
        for (sampling, mode), costs in zip(cells, found.values(), strict=True):
            temperature, top_p = SAMPLINGS[sampling]
            requests = [StreamRequest(p, num_tokens, temperature, top_p, seed=SEED, mode=mode) for p in prompts]
            for way, flags in WAYS.items():
                costs[way].append(asyncio.run(stage.cost(requests, *flags)))
    return found


def figures_of(sampling: str, costs: Costs) -> dict[str, float]:
    """The middle of each part by itself, and of *ours*, all of a round together, the best and the worst beside it."""
    plain, ours = middle(costs["memory"]), [one.ours for one in costs["memory"]]
    return {
        "draft forward": plain.draft_forward,
        "full forward": plain.full_forward,
        "draft choice": plain.draft_choice,
        "full choice": plain.full_choice,
        "event loop": plain.rest,
        "ours": median(ours),
        "ours in the best round": min(ours),
        "in the worst": max(ours),
        "goal": GOALS_US[sampling],
        "gRPC adds": middle(costs["grpc"]).rest - plain.rest,
        "HTTP events and their client add": middle(costs["http"]).rest - plain.rest,
    }


async def hand_over_us(full: FullModel) -> float:
    """The loop's CPU a job that is nothing but a forward of one token, on the runner as it is."""
    runner = EngineRunner.on_own_thread(full.engine, "full-model")
    cache = await runner.run(lambda engine: engine.open())
    began = time.thread_time()
    for token_id in range(HAND_OVERS):
        chunk = Chunk(cache, [token_id], 1)
        await runner.run(lambda engine, chunk=chunk: engine.extend([chunk]))  # type: ignore[misc]
    spent_s = time.thread_time() - began
    await runner.run(lambda engine: engine.close(cache))
    runner.shutdown()
    return 1e6 * spent_s / HAND_OVERS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    share_interpreter()
    use_compiled()
    full = build_engine(VerifierConfig(cloud=UNSHAPED))
    figures = {name: figures_of(name.partition(",")[0], costs) for name, costs in measure(full, arguments.quick).items()}
    columns = ["CPU us a final token", *next(iter(figures.values()))]
    rows = [[name, *(f"{value:.0f}" for value in row.values())] for name, row in figures.items()]
    bare = median(asyncio.run(hand_over_us(full)) for _ in range(1 if arguments.quick else ROUNDS))
    floor = Grid("Bare hand-over to an engine's thread and back", ["CPU us a job"], [[f"{bare:.0f}"]])
    title = f"One stream, unshaped (rounds: {1 if arguments.quick else ROUNDS}; {python_implementation()} {python_version()})"
    publish(arguments, "one-stream", [Grid(title, columns, rows), floor], {**figures, "hand-over": bare})


if __name__ == "__main__":
    main()
