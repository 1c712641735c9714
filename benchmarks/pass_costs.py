"""What a pass costs by sessions, drafted rows and context, beside the forward alone; and what a verified chunk costs beside it.

    python -m benchmarks.pass_costs [--quick] [--json FILE] [--fill docs/benchmarks.md]

Measured on the bundled full model, one thread, in this process. *Forward alone* is ONNX Runtime's own run within the same
passes; *priced* is what the verifier's own prices say, which it takes at its start (``cloud_verifier/profiling.py``).

A chunk is what one pass verifies of one session. What it costs beside the forward is CPU time of the production code, without a
network: a message decoded and taken, rows shared out, the choice made and settled, the verdict told and encoded.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.processes.devices import Script, scripts
from benchmarks.processes.service import TimedSession, timed
from benchmarks.report import Grid, add_arguments, publish_blocks
from benchmarks.trace_file import load
from cloud_verifier import profiling
from cloud_verifier.config import VerifierConfig
from cloud_verifier.costs import PassCosts, PassShape
from cloud_verifier.engine import FullModel, build_engine
from cloud_verifier.live import LiveSession
from cloud_verifier.passes import Entry, Pass
from cloud_verifier.verification import Verifier
from speculation.engines.base import CacheId, Engine
from speculation.engines.package import load_pair
from speculation.engines.runner import EngineRunner, share_interpreter
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import Draft
from speculation.wire import codec

DEPTH = 4
MAX_ROWS = 1 << 14
"""All prompts of the sessions in one pass, so that each has its verdict."""
WAYS = {"greedy": SamplingParameters(), "top-p": SamplingParameters(temperature=0.8, top_p=0.95, seed=1)}
GOALS_US = {"greedy": 150.0, "top-p": 400.0}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how often."""

    sessions: tuple[int, ...]
    drafted: tuple[int, ...]
    contexts: tuple[int, ...]
    repeats: int
    chunk_sessions: tuple[int, ...]
    num_passes: int


WHOLE = Plan((1, 4, 16, 64), (0, 1, 3, 7), (64, 256, 480), 9, (1, 16, 64), 30)
QUICK = Plan((1, 2), (0, 1), (64,), 1, (2,), 2)


@dataclass(frozen=True, slots=True)
class Cell:
    """One shape of a pass: medians in milliseconds."""

    sessions: int
    drafted: int
    context: int
    pass_ms: float
    forward_ms: float
    priced_ms: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """CPU time of one verified chunk, in microseconds; ``choice_us`` is the engine's thread without the forward."""

    way: str
    sessions: int
    rows: float
    codec_us: float
    protocol_us: float
    choice_us: float

    @property
    def total_us(self) -> float:
        return self.codec_us + self.protocol_us + self.choice_us


def cells(engine: Engine, clock: TimedSession, costs: PassCosts, plan: Plan) -> Iterator[Cell]:
    """Passes of every shape, greedy."""
    caches = [engine.open() for _ in range(max(plan.sessions))]
    for context in plan.contexts:
        for cache in caches:
            Pass((), [_entry(cache, 0, (1,) * context, 0)]).run(engine)
        for sessions in plan.sessions:
            for drafted in plan.drafted:
                yield _cell(engine, clock, costs, caches[:sessions], drafted, context, plan.repeats)
    for cache in caches:
        engine.close(cache)


def _cell(
    engine: Engine, clock: TimedSession, costs: PassCosts, caches: Sequence[CacheId], drafted: int, context: int, repeats: int
) -> Cell:
    passes, forwards = [], []
    for _ in range(1 + repeats):
        entries = [_entry(cache, context, (1,) * (1 + drafted), 1 + drafted) for cache in caches]
        began_s, forward_s = time.perf_counter(), clock.cpu_s
        Pass((), entries).run(engine)
        passes.append(time.perf_counter() - began_s)
        forwards.append(clock.cpu_s - forward_s)
        if entries[0].error is not None:
            raise entries[0].error
    shape = PassShape()
    for _ in caches:
        shape = shape.with_session(1 + drafted, context)
    figures_ms = (1e3 * x for x in (median(passes[1:]), median(forwards[1:]), costs.seconds(shape)))
    return Cell(len(caches), drafted, context, *figures_ms)


def _entry(cache: CacheId, cached: int, token_ids: Sequence[int], num_logits: int) -> Entry:
    return Entry(cache, cached, token_ids, num_logits, cached, token_ids[1:] if num_logits else (), SamplingParameters())


class Bench:
    """A verifier without a loop of its own, and the devices beside it, whose work is not counted."""

    def __init__(self, full: FullModel, clock: TimedSession, texts: Sequence[Script], sessions: int, way: str) -> None:
        config = VerifierConfig(max_sessions=sessions, max_rows=MAX_ROWS)
        self._clock = clock
        self._verifier = Verifier(EngineRunner(full.engine), full.identity, full.self_test, config)
        self._texts = [texts[number % len(texts)] for number in range(sessions)]
        self._devices = [self._device(number, script, WAYS[way]) for number, script in enumerate(self._texts)]
        self._lives: list[LiveSession] = []
        self._codec_s = self._protocol_s = self._choice_s = 0.0
        self._chunks = self._rows = 0
        self._way = way

    async def measure(self, num_passes: int) -> Chunk:
        self._lives = [self._verifier.attach(device.open()) for device in self._devices]
        for device, live in zip(self._devices, self._lives, strict=True):
            device.receive(codec.decode_response(await self._next(live)))
        await self._pass()
        self._codec_s = self._protocol_s = self._choice_s = 0.0
        self._chunks = self._rows = 0
        for _ in range(num_passes):
            await self._pass()
        for live in self._lives:
            live.close()
        await self._verifier._run_pass()  # gives the caches back
        parts = (1e6 * seconds / self._chunks for seconds in (self._codec_s, self._protocol_s, self._choice_s))
        return Chunk(self._way, len(self._lives), self._rows / self._chunks, *parts)

    async def _pass(self) -> None:
        for device, live, script in zip(self._devices, self._lives, self._texts, strict=True):
            if (draft := self._draft(device, script)) is not None:
                self._receive(live, codec.encode_request(draft))
        rows, forward_s, began_s = self._verifier.statistics.rows, self._clock.cpu_s, time.thread_time()
        await self._verifier._run_pass()
        self._choice_s += time.thread_time() - began_s - (self._clock.cpu_s - forward_s)
        self._rows += self._verifier.statistics.rows - rows
        self._chunks += len(self._lives)
        for device, live in zip(self._devices, self._lives, strict=True):
            device.receive(codec.decode_response(await self._next(live)))

    def _receive(self, live: LiveSession, data: bytes) -> None:
        began_s = time.thread_time()
        message = codec.decode_request(data)
        decoded_s = time.thread_time()
        live.receive(message)
        self._codec_s += decoded_s - began_s
        self._protocol_s += time.thread_time() - decoded_s

    async def _next(self, live: LiveSession) -> bytes:
        began_s = time.thread_time()
        message = await live.next()
        read_s = time.thread_time()
        assert message is not None
        data = codec.encode_response(message)
        self._protocol_s += read_s - began_s
        self._codec_s += time.thread_time() - read_s
        return data

    def _device(self, number: int, script: Script, parameters: SamplingParameters) -> DeviceSession:
        identity = self._verifier.identity
        return DeviceSession(f"s{number}", identity, script.prompt, parameters, len(script.token_ids) + 1)

    def _draft(self, device: DeviceSession, script: Script) -> Draft | None:
        """The recorded text itself where it is greedy, so that most drafts agree; else as many tokens that may not."""
        start = len(device.final) - len(script.prompt)
        for token_id in script.token_ids[start : start + DEPTH][len(device.path) :]:
            device.drafted(token_id)
        return device.flush()


def cell_grid(found: Sequence[Cell]) -> Grid:
    columns = [
        "context",
        "sessions",
        "drafted a session",
        "rows",
        "pass, ms",
        "forward alone, ms",
        "share",
        "priced, ms",
        "priced / pass",
    ]
    rows = [
        [
            str(cell.context),
            str(cell.sessions),
            str(cell.drafted),
            str(cell.sessions * (1 + cell.drafted)),
            f"{cell.pass_ms:.2f}",
            f"{cell.forward_ms:.2f}",
            f"{cell.forward_ms / cell.pass_ms:.2f}",
            f"{cell.priced_ms:.2f}",
            f"{cell.priced_ms / cell.pass_ms:.2f}",
        ]
        for cell in found
    ]
    return Grid("Measured: a pass of the bundled full model, greedy (fp32, one thread; medians)", columns, rows)


def chunk_grid(found: Sequence[Chunk]) -> Grid:
    columns = [
        "way",
        "sessions",
        "rows a chunk",
        "codec, us",
        "protocol and schedule, us",
        "choice and pass, us",
        "together, us",
        "goal, us",
    ]
    rows = [
        [
            chunk.way,
            str(chunk.sessions),
            f"{chunk.rows:.1f}",
            *(f"{us:.0f}" for us in (chunk.codec_us, chunk.protocol_us, chunk.choice_us, chunk.total_us, GOALS_US[chunk.way])),
        ]
        for chunk in found
    ]
    return Grid("Measured: CPU time of a verified chunk beside the forward, without transport", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    share_interpreter()
    plan = QUICK if arguments.quick else WHOLE
    slots = max(plan.sessions)
    full = build_engine(VerifierConfig(num_slots=slots, max_sessions=slots))
    costs = profiling.measure(full.engine, MAX_ROWS)
    clock = timed(full.engine)
    shapes = list(cells(full.engine, clock, costs, plan))
    texts = scripts(load(), load_pair(), 0.0)
    chunks = [
        asyncio.run(Bench(full, clock, texts, sessions, way).measure(plan.num_passes))
        for way in WAYS
        for sessions in plan.chunk_sessions
    ]
    blocks = {"pass-costs": [cell_grid(shapes)], "chunk-costs": [chunk_grid(chunks)]}
    figures = {"passes": [asdict(cell) for cell in shapes], "chunks": [asdict(chunk) for chunk in chunks]}
    publish_blocks(arguments, blocks, figures)


if __name__ == "__main__":
    main()
