"""Answers under cover on an emulated network, from traces of the bundled pair, with somebody on the line; and more traces of
the same prompts under other seeds, recorded when they are needed.

Production code under the virtual clock. A prompt is one token here, so its length tells the watcher nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks import trace_file
from benchmarks.eavesdropper import Seen, Tap
from benchmarks.trace_file import Recording
from benchmarks.trace_recorder import Plan, record
from benchmarks.trace_replay import Replay, ReplayDraft, ReplayFull, StepCost
from benchmarks.virtual import last_event
from cloud_verifier.config import VerifierConfig
from cloud_verifier.covering import CoveringVerifier
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.request import StreamRequest
from outrider.planning.synthetic import IDENTITY, decode
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.links.covered import CoveredConnector
from speculation.links.memory import MemoryConnector
from speculation.protocol.cover import Cover
from speculation.shaping import profiles, virtual_time
from speculation.shaping.link import ShapedConnector

DRAFT_S, PASS_S = 0.009, 0.041
"""The demo's phone and cloud."""

NUM_TOKENS = 96
"""Of an answer, where the model does not end before."""

FIRST_OTHER_SEED = 1001


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer, and all that somebody at the phone's radio sees of it. Times in seconds of the virtual clock."""

    seen: list[Seen]
    num_tokens: int
    tokens_per_s: float
    first_final_ms: float


@dataclass(frozen=True, slots=True)
class Way:
    """How an answer crosses: under which cover, on which network, with which draw of its delays, and how far."""

    cover: Cover
    network: str
    seed: int = 0
    num_tokens: int = NUM_TOKENS


def heard(replay: Replay, index: int, way: Way) -> Heard:
    """A trace answered in that way, on a warm connection."""
    return virtual_time.run(_heard(replay, index, way))


async def _heard(replay: Replay, index: int, way: Way) -> Heard:
    draft = ReplayDraft(replay, StepCost(DRAFT_S), num_slots=16)
    proved, config = SelfTest(True, "f" * 16, 0.0, ()), VerifierConfig()
    verifier = Verifier(EngineRunner(ReplayFull(replay, StepCost(PASS_S))), IDENTITY, proved, config)
    radio = ShapedConnector(MemoryConnector(CoveringVerifier(verifier, config)), profiles.network(way.network), way.seed)
    tap = Tap(radio)
    agent = DeviceAgent(replay.facts, EngineRunner(draft), CoveredConnector(tap, way.cover), AgentConfig())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(verifier.run())
        async with agent:
            await last_event(agent, StreamRequest(decode([0]), max_tokens=1))
            tap.seen.clear()
            done = await last_event(agent, replace(replay.request(index), max_tokens=way.num_tokens))
            seen = list(tap.seen)
        verifier.stop()
    figures = done.figures
    return Heard(seen, len(done.token_ids), figures["tokens_per_s"]["value"], figures["first_final_ms"]["value"])


def bundled() -> Replay:
    """The committed traces: each prompt greedy, and under one seed."""
    return Replay(trace_file.load())


def under_other_seeds(num_prompts: int, num_seeds: int, num_tokens: int) -> list[Replay]:
    """Traces of the same prompts at temperature 0.8, one replay a seed; recorded here by the real pair, seconds each."""
    return [Replay(_recorded(num_prompts, num_tokens, FIRST_OTHER_SEED + 1000 * number)) for number in range(num_seeds)]


def _recorded(num_prompts: int, num_tokens: int, first_seed: int) -> Recording:
    return record(Plan(num_prompts, num_tokens, (0.8,), first_seed, first_length=16, second_length=6))


def beginning(seen: Sequence[Seen], length_s: float) -> list[Seen]:
    """What passed in the first seconds of an answer."""
    return [message for message in seen if message.at_s - seen[0].at_s < length_s]
