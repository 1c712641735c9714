"""The real pair from its traces: two engines without weights that say by prefix what was recorded.

A prompt is one token, the number of its trace; the tokens behind it are the pair's own. Both ends run at temperature 0, for
sampled traces too: what was recorded is the choice, with the noise in it. The draft's logits are made so that its first choices
and its confidence in each come out of the agent's own rule as they were recorded. Behind a prefix that was not recorded the
draft makes something up from the prefix, with the mean confidences of the trace's path; ``Use`` counts how often. What was
recorded without a name gets one from the prefix, too.

The full model's row behind a prefix off its path is made up too: nothing is ever committed there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.grid_production import delay_line
from benchmarks.trace_file import FIRST, NO_TOKEN, Proposals, Recording, Trace
from benchmarks.virtual import last_event
from cloud_verifier.companion import Companion
from cloud_verifier.config import VerifierConfig
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.pair import PairFacts
from device_agent.request import Mode, StreamRequest
from outrider.planning.synthetic import FIRST_LETTER, IDENTITY, decode
from speculation.engines.base import Chunk, EngineDescription
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.errors import InvalidRequestError
from speculation.links.memory import MemoryConnector
from speculation.shaping.link import ShapedConnector

LEAD = 1e-3
"""Units of logits by which one choice leads the next at least: more than a near-tie."""

LEAST, PEAK = 1e-30, 8.0
NUM_SLOTS = 8
ROOT = b"replay"
NOTHING_KNOWN = (0.5, 0.1)
"""Confidences behind a prompt that is none of the traces: only a test of the engines gets there."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the draft says behind one prefix: its first choices, and its confidence in each."""

    token_ids: tuple[int, ...]
    confidences: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StepCost:
    """What a step is charged: so long for reading the weights, so long for each token that goes in. Emulated."""

    step_s: float = 0.0
    row_s: float = 0.0

    def of(self, num_rows: int) -> float:
        return self.step_s + num_rows * self.row_s


FREE = StepCost()


@dataclass(slots=True)
class Use:
    """Rows that a draft gave, and how many of them no trace told."""

    num_rows: int = 0
    num_made_up: int = 0

    @property
    def made_up_share(self) -> float:
        return self.num_made_up / self.num_rows if self.num_rows else 0.0


class Replay:
    """A recording, addressed by prefix. Made once, shared by all engines; they never change it."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.context_length = 1 + max(len(trace.token_ids) for trace in recording.traces)
        self._said: dict[bytes, tuple[Proposals, int]] = {}
        self.taken: dict[bytes, int] = {}
        self.means: dict[bytes, tuple[float, ...]] = {}
        for index, trace in enumerate(recording.traces):
            self._add(index, trace)

    @property
    def facts(self) -> PairFacts:
        """The pair as an agent knows it."""
        length, ends = self.context_length, self.recording.end_token_ids
        return PairFacts("replay", "replay", IDENTITY, self._encode, decode, ends, length, length)

    def said(self, address: bytes) -> Said | None:
        """What the draft said behind the prefix at an address, where that was recorded."""
        if (found := self._said.get(address)) is None:
            return None
        said, row = found
        token_ids = _named(said.token_ids[row].tolist(), address, self.recording.vocabulary_size)
        return Said(token_ids, tuple(said.confidences[row].tolist()))

    def indices(self, temperature: float) -> list[int]:
        """The traces recorded at a temperature."""
        return [index for index, trace in enumerate(self.recording.traces) if trace.temperature == temperature]

    def request(self, index: int, mode: Mode = Mode.COLLABORATE) -> StreamRequest:
        """A request for all of a trace."""
        return StreamRequest(decode([index]), max_tokens=len(self.recording.traces[index].token_ids), mode=mode)

    def _encode(self, text: str) -> list[int]:
        """Raises ``InvalidRequestError`` for a text that is not ``decode([index])``."""
        index = ord(text) - FIRST_LETTER if len(text) == 1 else -1
        count = len(self.recording.traces)
        if not 0 <= index < count:
            raise InvalidRequestError(f"a prompt to replay is one letter that names a trace, 0 to {count - 1}", "prompt")
        return [index]

    def _add(self, index: int, trace: Trace) -> None:
        path = addresses(ROOT, [index, *trace.token_ids.tolist()])
        self.taken.update(zip(path, trace.token_ids.tolist(), strict=False))
        self._tell(path, trace.said)
        self.means[path[0]] = tuple(trace.said.confidences.mean(axis=0).tolist())
        for branch in trace.branches:
            start = int(trace.said.token_ids[branch.offset, branch.rank])
            followed = [start, *branch.said.token_ids[:-1, FIRST].tolist()]
            self._tell(addresses(path[branch.offset], followed), branch.said)

    def _tell(self, behind: Sequence[bytes], said: Proposals) -> None:
        """What is said behind these; the last of a path has nothing behind it."""
        self._said.update((address, (said, row)) for row, address in enumerate(behind[: len(said)]))


class _ReplayEngine(RandomEngine, ABC):
    """Caches of addresses; a step is charged its emulated cost."""

    def __init__(self, replay: Replay, cost: StepCost, num_slots: int) -> None:
        super().__init__(replay.recording.vocabulary_size, replay.context_length, 0, num_slots)
        self._replay = replay
        self._cost = cost
        self._charge_s = 0.0

    @property
    def description(self) -> EngineDescription:
        return dataclasses.replace(super().description, name="replay")

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        logits = super().extend(chunks)
        self._charge_s += self._cost.of(sum(len(chunk.token_ids) for chunk in chunks))
        return logits

    def take_charge_s(self) -> float:
        """Emulated seconds since the last call."""
        charge_s, self._charge_s = self._charge_s, 0.0
        return charge_s

    def _append(self, chunk: Chunk) -> list[NDArray[np.float32]]:
        prefix = self._prefix(chunk.cache)
        prefix += addresses(prefix[-1] if prefix else ROOT, chunk.token_ids)
        return [self._row_behind(prefix[0], address) for address in prefix[len(prefix) - chunk.num_logits :]]

    @abstractmethod
    def _row_behind(self, prompt: bytes, address: bytes) -> NDArray[np.float32]:
        """Logits behind a prefix, given its address and that of the prompt."""


class ReplayDraft(_ReplayEngine):
    """The draft: says what was recorded, and never looks at what the full model took."""

    def __init__(self, replay: Replay, cost: StepCost = FREE, num_slots: int = NUM_SLOTS) -> None:
        super().__init__(replay, cost, num_slots)
        self.use = Use()

    def _row_behind(self, prompt: bytes, address: bytes) -> NDArray[np.float32]:
        size = self._description.vocabulary_size
        self.use.num_rows += 1
        said = self._replay.said(address)
        if said is None:
            self.use.num_made_up += 1
            said = _made_up(address, size, self._replay.means.get(prompt, NOTHING_KNOWN))
        return draft_row(said, size)


class ReplayFull(_ReplayEngine):
    """The full model: sure of the token it took."""

    def __init__(self, replay: Replay, cost: StepCost = FREE, num_slots: int = NUM_SLOTS) -> None:
        super().__init__(replay, cost, num_slots)

    def _row_behind(self, prompt: bytes, address: bytes) -> NDArray[np.float32]:
        size = self._description.vocabulary_size
        row = np.zeros(size, np.float32)
        taken = self._replay.taken.get(address)
        row[_drawn(address, b"full") % size if taken is None else taken] = PEAK
        return row


def draft_row(said: Said, vocabulary_size: int) -> NDArray[np.float32]:
    """Logits whose largest are those tokens in order and whose softmax gives those confidences; what is left is shared evenly.

    Confidences that would not keep the order (rounded to the same, or below an even share) are moved apart by ``LEAD``.
    """
    shares = [max(said.confidences[FIRST], 2 / vocabulary_size)]
    count, left = len(said.token_ids), 1 - shares[FIRST]
    for place, confidence in enumerate(said.confidences[1:], 1):
        even = max(left / (vocabulary_size - place), LEAST)
        # Those that follow stand between this and an even share, each a step down.
        shares.append(max(min(confidence, shares[-1] * math.exp(-LEAD)), even * math.exp(LEAD * (count - place))))
        left -= shares[-1]
    rest = max(left / (vocabulary_size - count), LEAST / vocabulary_size)
    row = np.full(vocabulary_size, math.log(rest), np.float32)
    row[list(said.token_ids)] = np.log(shares)
    return row


def addresses(before: bytes, token_ids: Sequence[int]) -> list[bytes]:
    """The address behind each of these tokens, which follow the prefix with the address ``before``."""
    out = []
    for token_id in token_ids:
        before = hashlib.blake2b(before + int(token_id).to_bytes(8, "little"), digest_size=16).digest()
        out.append(before)
    return out


def _made_up(address: bytes, vocabulary_size: int, confidences: tuple[float, ...]) -> Said:
    token_id = _drawn(address, b"first") % vocabulary_size
    nameless = [NO_TOKEN] * (len(confidences) - 1)
    return Said(_named([token_id, *nameless], address, vocabulary_size), confidences)


def _named(token_ids: Sequence[int], address: bytes, vocabulary_size: int) -> tuple[int, ...]:
    """Those without a name get one from the prefix, and none twice."""
    named = [token_id for token_id in token_ids if token_id != NO_TOKEN]
    if len(named) == len(token_ids):
        return tuple(named)
    stride = 1 + _drawn(address, b"second") % (vocabulary_size - 1)
    while len(named) < len(token_ids):
        token_id = (named[-1] + stride) % vocabulary_size
        while token_id in named:
            token_id = (token_id + 1) % vocabulary_size
        named.append(token_id)
    return tuple(named)


def _drawn(address: bytes, purpose: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(address, person=purpose, digest_size=8).digest(), "little")


@asynccontextmanager
async def stack(
    replay: Replay,
    draft: ReplayDraft,
    full: ReplayFull,
    round_trip_ms: float,
    config: AgentConfig | None = None,
    verifier_config: VerifierConfig | None = None,
    companion: Companion | None = None,
) -> AsyncIterator[DeviceAgent]:
    """The production agent and verifier on a replay, with a delay line between them; the connection is warm."""
    proved = SelfTest(True, "f" * 16, 0.0, ())
    verifier = Verifier(EngineRunner(full), IDENTITY, proved, verifier_config or VerifierConfig(), companion)
    connector = ShapedConnector(MemoryConnector(verifier), delay_line(round_trip_ms))
    agent = DeviceAgent(replay.facts, EngineRunner(draft), connector, config or AgentConfig())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(verifier.run())
        async with agent:
            await last_event(agent, StreamRequest(decode([0]), max_tokens=1))
            draft.use = Use()
            yield agent
        verifier.stop()
