"""Stand-ins: a full model and a draft of known quality, a verifier in this process, links that break, a client that watches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import jsonschema
import numpy as np

from cloud_verifier.config import VerifierConfig
from cloud_verifier.verification import Verifier
from device_agent import schema
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.pair import PairFacts
from device_agent.request import StreamRequest
from speculation.choice import choose
from speculation.engines.base import Chunk, Engine
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.errors import LinkError
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import PairIdentity
from tests.device_agent.replay import Replay

IDENTITY = PairIdentity("a" * 64, "b" * 64, "c" * 64)
VOCABULARY, CONTEXT, FULL_SEED = 64, 256, 7
LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,;:-!?()'\""
PROMPT = "the prompt"

_DEFINITIONS = schema.stream_schema()["$defs"]
_VALIDATORS = {
    name: jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": _DEFINITIONS})
    for name, definition in _DEFINITIONS.items()
    if "event" in definition.get("properties", {})
}


def encode(text: str) -> list[int]:
    return [LETTERS.index(letter) for letter in text]


def decode(token_ids: list[int]) -> str:
    return "".join(LETTERS[token_id] for token_id in token_ids)


class FullEngine(RandomEngine):
    """The full model: a table."""

    def __init__(self, num_slots: int = 8) -> None:
        super().__init__(VOCABULARY, CONTEXT, FULL_SEED, num_slots)


class DraftEngine(FullEngine):
    """The full model's table with other logits in a share of the rows; takes emulated time, and fails when told to."""

    def __init__(self, accuracy: float = 0.8, num_slots: int = 8, step_s: float = 0.0, token_s: float = 0.0) -> None:
        super().__init__(num_slots)
        self.open_caches: set[int] = set()
        self.num_fed = 0
        self.failure: Exception | None = None
        self._accuracy = accuracy
        self._step_s, self._token_s = step_s, token_s
        self._charge_s = 0.0

    def open(self):
        cache = super().open()
        self.open_caches.add(cache)
        return cache

    def close(self, cache):
        super().close(cache)
        self.open_caches.remove(cache)

    def fork(self, cache, length=None):
        copy = super().fork(cache, length)
        self.open_caches.add(copy)
        return copy

    def extend(self, chunks: Sequence[Chunk]) -> np.ndarray:
        if self.failure is not None:
            raise self.failure
        num_fed = sum(len(chunk.token_ids) for chunk in chunks)
        self.num_fed += num_fed
        self._charge_s += self._step_s + self._token_s * num_fed
        return np.array([self._heard(row) for row in super().extend(chunks)])

    def _heard(self, row: np.ndarray) -> np.ndarray:
        digest = int(abs(float(row[0])) * 1e6) % 1000
        return row if digest < 1000 * self._accuracy else row[::-1]

    def take_charge_s(self) -> float:
        charge_s, self._charge_s = self._charge_s, 0.0
        return charge_s


class SlowEngine(FullEngine):
    """The full model where a pass takes time."""

    def __init__(self, pass_s: float) -> None:
        super().__init__()
        self._pass_s = pass_s

    def take_charge_s(self) -> float:
        return self._pass_s


def facts(**changes) -> PairFacts:
    given = {
        "draft": "draft",
        "full": "full",
        "identity": IDENTITY,
        "encode": encode,
        "decode": decode,
        "end_token_ids": (),
    }
    return PairFacts(**given | {"context_length": CONTEXT, "draft_context_length": CONTEXT} | changes)


def config(**changes) -> AgentConfig:
    return AgentConfig(**{"port": 0, "drain_grace_s": 0.0} | changes)


@contextlib.asynccontextmanager
async def verifier(engine: Engine | None = None, is_exact: bool = True, **changes):
    """A verifier of this process, its engine inline."""
    runner = EngineRunner(engine or FullEngine())
    made = Verifier(runner, IDENTITY, SelfTest(is_exact, "f" * 16, 0.0, ()), VerifierConfig(port=0, **changes))
    async with asyncio.TaskGroup() as tasks:
        passes = tasks.create_task(made.run())
        try:
            yield made
        finally:
            passes.cancel()


def agent_of(connector, draft: Engine | None = None, pair: PairFacts | None = None, **changes) -> DeviceAgent:
    return DeviceAgent(pair or facts(), EngineRunner(draft or DraftEngine()), connector, config(**changes))


@contextlib.asynccontextmanager
async def agent(draft: Engine | None = None, full: Engine | None = None, pair: PairFacts | None = None, **changes):
    """An agent with a verifier behind it, without a network."""
    async with verifier(full) as made, agent_of(MemoryConnector(made), draft, pair, **changes) as running:
        yield running


def request(**changes) -> StreamRequest:
    return StreamRequest(**{"prompt": PROMPT, "max_tokens": 40, "seed": 3} | changes)


async def answer(running: DeviceAgent, **changes) -> Replay:
    """One whole answer, followed by a client that refuses what breaks the contract."""
    replay = Replay()
    async with contextlib.aclosing(running.stream(request(**changes))) as events:
        async for event in events:
            feed(replay, event.to_json())
    assert replay.last is not None, "the stream ended without a last event"
    return replay


def feed(replay: Replay, event) -> None:
    validate(event)
    replay.feed(event)


def validate(event) -> None:
    """Against the committed schema, as a client would read it."""
    _VALIDATORS[event["event"]].validate(
        {key: list(value) if isinstance(value, tuple) else value for key, value in event.items()}
    )


def plain_decoding(engine: Engine, max_tokens: int = 40, parameters=None, end_token_ids=(), prompt: str = PROMPT) -> list[int]:
    """The text of one model alone: one token after the other from an empty cache."""
    parameters = parameters or SamplingParameters(seed=3)
    cache, new, position = engine.open(), encode(PROMPT), len(PROMPT)
    generated: list[int] = []
    while len(generated) < max_tokens:
        logits = engine.extend([Chunk(cache, new, 1)])
        new = [int(choose(logits, [position], [parameters]).token_ids[0])]
        generated += new
        position += 1
        if new[0] in end_token_ids:
            break
    engine.close(cache)
    return generated


class WatchedLink:
    """A link that notes what passes, and breaks when told to. ``limit``: messages received before it breaks."""

    def __init__(self, link, limit: int | None = None) -> None:
        self._link = link
        self._limit = limit
        self.sent: list[tuple[float, object]] = []
        self.is_closed = False

    @property
    def statistics(self):
        return self._link.statistics

    async def send(self, message) -> None:
        self.sent.append((asyncio.get_running_loop().time(), message))
        if self._limit == 0:
            raise LinkError("the link is broken")
        await self._link.send(message)

    async def receive(self):
        if self._limit == 0:
            raise LinkError("the link broke")
        message = await self._link.receive()
        if self._limit is not None:
            self._limit -= 1
        return message

    async def aclose(self) -> None:
        self.is_closed = True
        await self._link.aclose()


class WatchedConnector:
    """Opens watched links, after a time; or none, where ``failure`` says why."""

    def __init__(
        self, connector=None, limit: int | None = None, delay_s: float = 0.0, failure: Exception | None = None
    ) -> None:
        self._connector = connector
        self._limit = limit
        self._delay_s = delay_s
        self._failure = failure
        self.links: list[WatchedLink] = []
        self.is_closed = False

    async def connect(self) -> WatchedLink:
        await asyncio.sleep(self._delay_s)
        if self._failure is not None:
            raise self._failure
        self.links.append(WatchedLink(await self._connector.connect(), self._limit))
        return self.links[-1]

    async def aclose(self) -> None:
        self.is_closed = True


async def wait_until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110 (state of the code under test, which has no event)
        await asyncio.sleep(0)
