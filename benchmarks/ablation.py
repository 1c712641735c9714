"""Each drafting policy alone, gathering off and on, at one reference cell: the synthetic pair, and the real pair's traces.

Emulated under the virtual clock with the cost model that ``adaptive`` prints, so the tables are the same on any machine.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.adaptive_worlds import Half, Metered, Spent, World, answered, spent_on, stack
from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.trace_file import load
from benchmarks.trace_replay import Replay, ReplayDraft, ReplayFull
from device_agent.config import AgentConfig
from speculation.shaping import virtual_time

REFERENCE = World(9.0, 60.0, 1.0, Half(60.0, 0.8), Half(60.0, 0.8))
SYNTHETIC = "synthetic pair, acceptance 0.8"
TEMPERATURES: Mapping[str, float] = {"real pair, temperature 0": 0.0, "real pair, temperature 0.8": 0.8}
PAIRS = (SYNTHETIC, *TEMPERATURES)
RUNS, QUICK = (1000, 16), (20, 1)
"""Tokens of the synthetic pair, and traces of the real one."""
COLUMNS = (
    "policy",
    "gathering",
    "tokens a second",
    "passes a token",
    "draft steps a token",
    "nodes sent a token",
    "bytes a token",
    "mJ a token",
    "revoked share",
)


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


def cases(num_tokens: int, num_traces: int, gathering: Sequence[bool] = (False, True)) -> list[Case]:
    names = list(policies(True))
    return [Case(pair, name, is_on, num_tokens, num_traces) for pair in PAIRS for name in names for is_on in gathering]


def ablated(case: Case) -> Ablated:
    """Depends on nothing but the case and the committed traces."""
    config = policies(case.is_gathering)[case.policy]
    if case.pair == SYNTHETIC:
        return Ablated(case, answered(REFERENCE, config, 0, case.num_tokens))
    return Ablated(case, virtual_time.run(_replayed(config, TEMPERATURES[case.pair], case.num_traces)))


@functools.cache
def _replay() -> Replay:
    return Replay(load())


async def _replayed(config: AgentConfig, temperature: float, num_traces: int) -> Spent:
    replay = _replay()
    draft = Metered(ReplayDraft(replay), REFERENCE.draft_cost)
    full = Metered(ReplayFull(replay), REFERENCE.pass_cost)
    requests = [replay.request(index) for index in replay.indices(temperature)[:num_traces]]
    round_trip_ms = REFERENCE.first.round_trip_ms
    async with stack(replay.facts, draft, full, round_trip_ms, config) as agent:
        return await spent_on(agent, draft, requests, round_trip_ms, ReplayFull(replay))


def grid(pair: str, ablated: Sequence[Ablated]) -> Grid:
    """The table of one pair."""
    lines = [
        [found.case.policy, "on" if found.case.is_gathering else "off", *_spent(found.spent)]
        for found in ablated
        if found.case.pair == pair
    ]
    return Grid(f"Emulated, each policy alone: draft 9 ms, pass 60 ms, round trip 60 ms, {pair}", COLUMNS, lines)


def _spent(spent: Spent) -> list[str]:
    counts = [f"{spent.passes:.2f}", f"{spent.steps:.2f}", f"{spent.nodes:.2f}", f"{spent.sent_bytes:.0f}"]
    return [f"{1 / spent.seconds:.1f}", *counts, f"{1000 * spent.joules:.0f}", f"{spent.revoked_share:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    arguments = parser.parse_args()
    alone = cases(*QUICK, gathering=(True,)) if arguments.quick else cases(*RUNS)
    spent = in_processes(ablated, alone, 1 if arguments.quick else arguments.processes, "policies")
    publish(arguments, "ablation", [grid(pair, spent) for pair in PAIRS], [found.to_json() for found in spent])


if __name__ == "__main__":
    main()
