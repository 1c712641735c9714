"""One seed, one scene: an agent, its verifiers, the links between them, some answers, and all that goes wrong with them.

The agent and the verifiers are production code under the virtual clock with inline engines; the links are hostile doubles.
Each answer is followed by a client that refuses whatever breaks the contract of ``docs/stream.md``, and is compared with plain
decoding.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloud_verifier.config import VerifierConfig
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.pair import PairFacts
from device_agent.request import Reveal, StreamRequest
from speculation.engines.runner import EngineRunner
from speculation.shaping import virtual_time
from tests.device_agent.replay import Replay
from tests.faults.fleet import Death, Fleet
from tests.faults.hostile_link import Habits, Witness
from tests.faults.tables import Tracked

LONGEST_S = 3600.0
"""By then, on the virtual clock, an answer that has not ended never will."""

SAMPLINGS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_k": 8},
    {"temperature": 1.2, "top_p": 0.9},
    {"temperature": 0.7, "top_p": 0.95, "top_k": 20},
)


@dataclass(frozen=True, slots=True)
class Models:
    """A pair, and what plain decoding of its full model writes for a request."""

    facts: PairFacts
    draft: Callable[[], Tracked]
    full: Callable[[], Tracked]
    plain: Callable[[StreamRequest], Sequence[int]]


class Pair(Protocol):
    """Where scenes take their models and prompts from."""

    def models(self, seed: int, rng: random.Random, num_streams: int) -> Models: ...

    def prompt(self, rng: random.Random) -> str: ...

    def max_tokens(self, rng: random.Random) -> int: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """How one answer ended; ``is_whole``: it is all that plain decoding writes, and all of it is verified."""

    num_tokens: int
    finish_reason: str
    is_whole: bool
    ended_alone: bool


@dataclass(frozen=True, slots=True)
class Fate:
    """Everything that a seed decides before the first token."""

    requests: list[tuple[float, StreamRequest]]
    agent: AgentConfig
    verifiers: list[VerifierConfig]
    deaths: list[Death]
    habits: Habits


class SceneError(AssertionError):
    """A scene went wrong; says the seed and how to see it again."""

    def __init__(self, seed: int, command: str, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        what = str(error).strip().partition("\n")[0]
        self.seed, self.reason = seed, f"{type(error).__name__}: {what}" if what else type(error).__name__
        super().__init__(f"seed {seed}: {self.reason}\nagain: {command} {seed}")


def fate(pair: Pair, rng: random.Random) -> Fate:
    num_streams = rng.choice((1, 1, 2, 3, 4))
    verifier = {
        "credit": rng.choice((32, 33, 64, 200)),
        "max_rows": rng.choice((3, 8, 32, 256)),
        "outbox_messages": rng.choice((1, 2, 64)),
        "max_sessions": rng.choice((num_streams, 16, 16, 16)),
    }
    return Fate(
        requests=[(rng.choice((0.0, rng.uniform(0, 3))), _request(pair, rng)) for _ in range(num_streams)],
        agent=AgentConfig(draft_depth=rng.choice((1, 2, 4, 8, 8, 64)), max_streams=num_streams),
        verifiers=[VerifierConfig(**verifier)] * rng.choice((1, 1, 2)),
        deaths=[_death(rng) for _ in range(rng.choice((0, 0, 0, 1, 2)))],
        habits=Habits(
            mean_delay_s=rng.choice((0.001, 0.05, 0.3, 1.0)),
            cut=rng.choice((0.0, 0.4, 0.8)),
            refuse=rng.choice((0.0, 0.0, 0.2)),
            repeat=rng.choice((0.0, 0.1, 0.4)),
            latest_s=rng.choice((1.0, 3.0, 6.0)),
        ),
    )


def play(seed: int, pair: Pair, command: str, tally: Counter[str]) -> list[Answer]:
    """Every answer of a scene; raises ``SceneError`` where one is not as it must be."""
    try:
        return virtual_time.run(_Scene(seed, pair, tally).answers())
    except Exception as error:
        raise SceneError(seed, command, error) from error


@dataclass
class _Watch:
    """A client that follows one answer, and notes what it sees of a device that writes alone."""

    tally: Counter[str]
    replay: Replay = field(default_factory=Replay)
    is_alone: bool = False
    num_alone: int = 0

    def sees(self, event: dict[str, Any]) -> None:
        self.replay.feed(event)
        if event["event"] == "state" and event["reason"] != "exactness":
            is_alone = event["mode"] == "device"
            self.tally["audited"] += self.is_alone and not is_alone and self.num_alone > 0
            self.is_alone, self.num_alone = is_alone, 0
        elif event["event"] == "speculative":
            self.num_alone += self.is_alone


class _Scene:
    def __init__(self, seed: int, pair: Pair, tally: Counter[str]) -> None:
        self._seed = seed
        rng = random.Random(f"{seed} scene")
        self._fate = fate(pair, rng)
        self._models = pair.models(seed, rng, len(self._fate.requests))
        self._tally = tally
        self._draft = self._models.draft()

    async def answers(self) -> list[Answer]:
        drawn, models = self._fate, self._models
        async with asyncio.timeout(LONGEST_S), asyncio.TaskGroup() as tasks:
            identity, witness = models.facts.identity, Witness(self._tally, {})
            fleet = Fleet(models.full, identity, drawn.verifiers, drawn.deaths, drawn.habits, self._seed, witness, tasks)
            async with DeviceAgent(models.facts, EngineRunner(self._draft), fleet, drawn.agent) as agent:
                answers = await asyncio.gather(*(self._answer(agent, *one) for one in drawn.requests))
                assert agent.num_streams == 0, "the agent still holds a stream"
            assert not self._draft.open_caches, "the agent still holds a cache"
            await fleet.settle()
        return answers

    async def _answer(self, agent: DeviceAgent, after_s: float, request: StreamRequest) -> Answer:
        await asyncio.sleep(after_s)
        watch = _Watch(self._tally)
        async for event in agent.stream(request):
            watch.sees(event.to_json())
        last = watch.replay.last
        assert last is not None, "the stream ended without a last event"
        assert last["event"] == "done", f"the answer ended with an error: {last['error']['message']}"
        token_ids, truth = list(last["token_ids"]), list(self._models.plain(request))
        verified = token_ids[: last["verified_count"]]
        assert verified == truth[: len(verified)], f"what is verified is not the full model's: {_difference(verified, truth)}"
        if not watch.is_alone:
            assert verified == token_ids == truth, f"the text is not the full model's: {_difference(verified, truth)}"
        return Answer(len(token_ids), last["finish_reason"], verified == truth, watch.is_alone)


def _difference(ours: list[int], truth: list[int]) -> str:
    at = next((i for i, (a, b) in enumerate(zip(ours, truth, strict=False)) if a != b), min(len(ours), len(truth)))
    return f"at token {at} {ours[at : at + 3]} in place of {truth[at : at + 3]}"


def _request(pair: Pair, rng: random.Random) -> StreamRequest:
    return StreamRequest(
        pair.prompt(rng),
        max_tokens=pair.max_tokens(rng),
        seed=rng.getrandbits(53),
        reveal=rng.choice((Reveal.ALL, Reveal.ALL, Reveal.STABLE)),
        min_stability=rng.choice((0.0, 0.0, 0.0, 0.0, 0.5)),
        **rng.choice(SAMPLINGS),
    )


def _death(rng: random.Random) -> Death:
    return Death(1 + int(rng.expovariate(1 / 12)), rng.choice((0.0, 0.0, rng.uniform(2, 8))))
