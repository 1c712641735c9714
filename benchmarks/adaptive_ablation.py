"""Each drafting policy alone, gathering off and on, at one reference cell: the synthetic pair, and the real pair's traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from benchmarks.adaptive_worlds import Half, Metered, Spent, World, answered, spent_on, stack
from benchmarks.trace_file import load
from benchmarks.trace_replay import Replay, ReplayDraft, ReplayFull
from device_agent.config import AgentConfig
from speculation.shaping import virtual_time

REFERENCE = World(9.0, 60.0, 1.0, Half(60.0, 0.8), Half(60.0, 0.8))
SYNTHETIC = "synthetic pair, acceptance 0.8"
TEMPERATURES: Mapping[str, float] = {"real pair, temperature 0": 0.0, "real pair, temperature 0.8": 0.8}
PAIRS = (SYNTHETIC, *TEMPERATURES)


@dataclass(frozen=True, slots=True)
class Case:
    """A policy with a pair."""

    pair: str
    policy: str
    is_gathering: bool
    num_tokens: int
    num_traces: int


@dataclass(frozen=True, slots=True)
class Ablated:
    """What a case spends."""

    case: Case
    spent: Spent

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def policies(is_gathering: bool) -> dict[str, AgentConfig]:
    """By what they are called; what is not named is a user's default."""
    return {
        "stop and wait, 4 drafts": AgentConfig(drafting="fixed-length", draft_length=4, draft_gather=is_gathering),
        "one branch ahead": AgentConfig(drafting="ahead", draft_gather=is_gathering),
        "confidence gate": AgentConfig(drafting="confidence-gate", draft_gather=is_gathering),
        "second branch, 2 wide": AgentConfig(drafting="second-branch", draft_width=2, draft_gather=is_gathering),
        "second branch, 4 wide": AgentConfig(drafting="second-branch", draft_width=4, draft_gather=is_gathering),
        "adaptive, up to 2 wide": AgentConfig(drafting="adaptive", draft_width=2, draft_gather=is_gathering),
        "adaptive, up to 4 wide": AgentConfig(drafting="adaptive", draft_width=4, draft_gather=is_gathering),
    }


def cases(num_tokens: int, num_traces: int) -> list[Case]:
    names = list(policies(True))
    return [Case(pair, name, is_on, num_tokens, num_traces) for pair in PAIRS for name in names for is_on in (False, True)]


def ablated(case: Case) -> Ablated:
    """Depends on nothing but the case and the committed traces."""
    config = policies(case.is_gathering)[case.policy]
    if case.pair == SYNTHETIC:
        return Ablated(case, answered(REFERENCE, config, 0, case.num_tokens))
    return Ablated(case, virtual_time.run(_replayed(config, TEMPERATURES[case.pair], case.num_traces)))


async def _replayed(config: AgentConfig, temperature: float, num_traces: int) -> Spent:
    replay = Replay(load())
    draft = Metered(ReplayDraft(replay), REFERENCE.draft_cost)
    full = Metered(ReplayFull(replay), REFERENCE.pass_cost)
    requests = [replay.request(index) for index in replay.indices(temperature)[:num_traces]]
    round_trip_ms = REFERENCE.first.round_trip_ms
    async with stack(replay.facts, draft, full, round_trip_ms, config) as agent:
        return await spent_on(agent, draft, requests, round_trip_ms)
