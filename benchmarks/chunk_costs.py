"""What a verified chunk costs beside its forward: CPU time of the production code, without a network.

A chunk is what one pass verifies of one session: a message decoded and taken, rows shared out, the choice made and settled, the
verdict told and encoded. Figures are the middle ones of some tens of passes, and of the middle one of some rounds: how much a
forward leaves in this machine's caches differs from second to second. Each draft is the token that the full model chooses there
with a given chance, else another one: what stands behind that one is not drawn. What reading the clock takes is taken off.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean, median

from benchmarks.clock import reading_s
from benchmarks.processes.devices import Script
from benchmarks.processes.service import Timed
from benchmarks.report import Grid
from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel
from cloud_verifier.live import LiveSession
from cloud_verifier.verification import Verifier
from speculation.engines.runner import EngineRunner
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import Draft
from speculation.wire import codec

DEPTH = 4
READINGS_A_PASS = 2
"""Of the clock that count as the pass loop's: its own, and both of the forward's but for the one that counts there."""
MAX_ROWS = 1 << 14
"""All prompts of the sessions in one pass, so that each has its verdict."""
WAYS = {"greedy": SamplingParameters(), "top-p": SamplingParameters(temperature=0.8, top_p=0.95, seed=1)}
GOALS_US = {"greedy": 150.0, "top-p": 400.0}
AGREEMENTS = {"greedy": (1.0,), "top-p": (1.0, 0.65)}
"""Chances that a draft agrees: the best there is, and about that of the bundled pair where tokens are drawn."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """CPU time of one verified chunk, in microseconds; ``choice_us`` is the engine's thread without the forward.

    Medians over passes, that of the sums as well.
    """

    way: str
    agreement: float
    sessions: int
    rows: float
    codec_us: float
    protocol_us: float
    choice_us: float
    total_us: float


@dataclass(frozen=True, slots=True)
class Rounds:
    """A chunk as the middle round gave it, by its sum, and the least and the most that a round gave."""

    middle: Chunk
    least_us: float
    most_us: float

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> Rounds:
        """Of one kind of chunk, a round each."""
        ordered = sorted(chunks, key=lambda chunk: chunk.total_us)
        return cls(ordered[(len(ordered) - 1) // 2], ordered[0].total_us, ordered[-1].total_us)


class _Spent:
    """CPU seconds of one pass, for all its sessions together."""

    def __init__(self) -> None:
        self.codec_s = self.protocol_s = self.choice_s = 0.0
        self.rows = 0

    @property
    def total_s(self) -> float:
        return self.codec_s + self.protocol_s + self.choice_s


class Bench:
    """A verifier without a loop of its own, and the devices beside it, whose work is not counted."""

    def __init__(self, full: FullModel, clock: Timed, texts: Sequence[Script], sessions: int, way: str) -> None:
        config = VerifierConfig(max_sessions=sessions, max_rows=MAX_ROWS)
        self._clock = clock
        self._verifier = Verifier(EngineRunner(full.engine), full.identity, full.self_test, config)
        self._texts = [texts[number % len(texts)] for number in range(sessions)]
        self.way, self._vocabulary_size = way, full.engine.description.vocabulary_size
        self._devices: list[DeviceSession] = []
        self._truths: list[list[int]] = []
        self._drafts: list[list[int]] = []
        self._lives: list[LiveSession] = []
        self._spent = _Spent()
        self._reading_s = 0.0

    async def _begin(self) -> None:
        self._devices = [self._device(number, script, WAYS[self.way]) for number, script in enumerate(self._texts)]
        self._lives = [self._verifier.attach(device.open()) for device in self._devices]
        for device, live in zip(self._devices, self._lives, strict=True):
            device.receive(codec.decode_response(await self._next(live)))

    async def _end(self) -> None:
        for live in self._lives:
            live.close()
        await self._verifier._run_passes()  # gives the caches back

    async def learn(self, num_tokens: int) -> None:
        """What the full model chooses behind each prompt, without drafts."""
        self._drafts = [[] for _ in self._texts]
        await self._begin()
        for _ in range(num_tokens):
            await self._pass()
        self._truths = [list(device.final[len(text.prompt) :]) for device, text in zip(self._devices, self._texts, strict=True)]
        await self._end()

    async def measure(self, num_passes: int, agreement: float) -> Chunk:
        """Behind ``learn``."""
        random = Random(7)
        self._drafts = [
            [token_id if random.random() < agreement else (token_id + 1) % self._vocabulary_size for token_id in truth]
            for truth in self._truths
        ]
        await self._begin()
        await self._pass()
        self._reading_s = reading_s()
        spent = [await self._pass() for _ in range(num_passes)]
        await self._end()
        sessions = len(self._lives)
        parts = ([one.codec_s for one in spent], [one.protocol_s for one in spent], [one.choice_s for one in spent])
        middles = (1e6 * median(seconds) / sessions for seconds in (*parts, [one.total_s for one in spent]))
        return Chunk(self.way, agreement, sessions, fmean(one.rows for one in spent) / sessions, *middles)

    async def _pass(self) -> _Spent:
        self._spent = spent = _Spent()
        for device, live, text, drafts in zip(self._devices, self._lives, self._texts, self._drafts, strict=True):
            if (draft := self._draft(device, len(device.final) - len(text.prompt), drafts)) is not None:
                self._receive(live, codec.encode_request(draft))
        rows, forward_s, began_s = self._verifier.statistics.rows, self._clock.cpu_s, time.thread_time()
        await self._verifier._run_passes()
        taken_s = time.thread_time() - began_s - (self._clock.cpu_s - forward_s)
        spent.choice_s = taken_s - READINGS_A_PASS * self._reading_s
        spent.rows = self._verifier.statistics.rows - rows
        for device, live in zip(self._devices, self._lives, strict=True):
            device.receive(codec.decode_response(await self._next(live)))
        return spent

    def _receive(self, live: LiveSession, data: bytes) -> None:
        began_s = time.thread_time()
        message = codec.decode_request(data)
        decoded_s = time.thread_time()
        live.receive(message)
        self._spent.codec_s += decoded_s - began_s - self._reading_s
        self._spent.protocol_s += time.thread_time() - decoded_s - self._reading_s

    async def _next(self, live: LiveSession) -> bytes:
        began_s = time.thread_time()
        message = await live.next()
        read_s = time.thread_time()
        assert message is not None
        data = codec.encode_response(message)
        self._spent.protocol_s += read_s - began_s - self._reading_s
        self._spent.codec_s += time.thread_time() - read_s - self._reading_s
        return data

    def _device(self, number: int, script: Script, parameters: SamplingParameters) -> DeviceSession:
        identity = self._verifier.identity
        return DeviceSession(f"s{number}", identity, script.prompt, parameters, len(script.token_ids) + 1)

    def _draft(self, device: DeviceSession, start: int, drafts: Sequence[int]) -> Draft | None:
        for token_id in drafts[start : start + DEPTH][len(device.path) :]:
            device.drafted(token_id)
        return device.flush()


async def chunks_in_turns(benches: Sequence[Bench], num_passes: int, num_rounds: int) -> list[Rounds]:
    """What chunks take on each bench, all of them once a round."""
    for bench in benches:
        await bench.learn((DEPTH + 1) * (num_passes + 1))
    kinds = [(bench, agreement) for bench in benches for agreement in AGREEMENTS[bench.way]]
    found: list[list[Chunk]] = [[] for _ in kinds]
    for _ in range(num_rounds):
        for chunks, (bench, agreement) in zip(found, kinds, strict=True):
            chunks.append(await bench.measure(num_passes, agreement))
    return [Rounds.of(chunks) for chunks in found]


def chunk_grid(found: Sequence[Rounds]) -> Grid:
    columns = [
        "way",
        "drafts that agree",
        "sessions",
        "rows a chunk",
        "codec, us",
        "protocol and schedule, us",
        "choice and pass, us",
        "together, us",
        "in the best and worst round, us",
        "goal, us",
    ]
    rows = [
        [
            chunk.way,
            f"{chunk.agreement:g}",
            str(chunk.sessions),
            f"{chunk.rows:.1f}",
            *(f"{us:.0f}" for us in (chunk.codec_us, chunk.protocol_us, chunk.choice_us, chunk.total_us)),
            f"{rounds.least_us:.0f} to {rounds.most_us:.0f}",
            f"{GOALS_US[chunk.way]:.0f}",
        ]
        for rounds in found
        for chunk in [rounds.middle]
    ]
    return Grid("Measured: CPU time of a verified chunk beside the forward, without transport", columns, rows)
