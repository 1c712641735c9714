"""When the first token is seen: the device and the cloud together beside the device alone and the cloud alone.

python -m benchmarks.first_token [--quick] [--phone NAME ...] [--json FILE] [--fill docs/benchmarks.md]

The real pair under the virtual clock: real ONNX inline, the time of a phone and of a cloud machine charged for it, prompt
prefill included, and a line between them that delays and does nothing else. Temperature 0, one warm connection, an answer at a
time. The tables are the same on any machine that gives the same tokens.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from rich.progress import Progress

from benchmarks.grid_production import delay_line
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.virtual import last_event
from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel, build_engine
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.build import draft_engine, facts_of
from device_agent.config import AgentConfig
from device_agent.drafting.policies import ADAPTIVE
from device_agent.request import Mode, StreamRequest
from speculation.engines.package import Pair, load_pair
from speculation.engines.runner import EngineRunner
from speculation.links.memory import MemoryConnector
from speculation.shaping import profiles, virtual_time
from speculation.shaping.engine import PhoneCost, shape
from speculation.shaping.link import ShapedConnector
from speculation.shaping.models import parse_model
from speculation.shaping.profiles import DEFAULT_CLOUD, DEFAULT_FULL_MODEL, DEFAULT_PHONE, UNSHAPED

BLOCK = "first-token"
NUM_TOKENS = 8
ROUND_TRIPS_MS = (20.0, 60.0, 150.0, 300.0)
ENDS_MS = (20.0, 300.0)
POLICIES = ("second-branch", ADAPTIVE)
MODELS = ("0.9B:int4", "3B:int4")
LATER_MS = 0.01
"""By how much a first token may seem later: figures are rounded to a ten-thousandth of a millisecond."""

FLAT = 0.02
"""By how much the first token may come later over the longest round trip than over the shortest, as a share."""

COLUMNS = ("phone", "draft stands for", "policy", "prompt", "prompt tokens", "round trip, ms", "device alone", "cloud alone")
SPREAD = (*COLUMNS[:5], "round trips, ms, where the device is first", "together, ms", "spread", "")


@dataclass(frozen=True, slots=True)
class Case:
    """A phone, the model that its draft stands for, a drafting policy, a prompt by name."""

    phone: str
    model: str
    policy: str
    prompt: str

    @property
    def config(self) -> AgentConfig:
        return AgentConfig(phone=self.phone, emulate=self.model, drafting=self.policy, cloud=DEFAULT_CLOUD)


@dataclass(frozen=True, slots=True)
class Row:
    """First visible token of one case over one round trip, in ms after the request, by mode."""

    case: Case
    prompt_tokens: int
    round_trip_ms: float
    collaborate_ms: float
    device_ms: float
    cloud_ms: float

    @property
    def is_missed(self) -> bool:
        return self.collaborate_ms > min(self.device_ms, self.cloud_ms) + LATER_MS

    @property
    def is_device_first(self) -> bool:
        return self.device_ms <= self.cloud_ms


@dataclass(frozen=True, slots=True)
class Spread:
    """One case over the round trips at which the device alone is before the cloud alone."""

    rows: Sequence[Row]

    @property
    def share(self) -> float:
        """By how much the latest first token is behind the earliest."""
        times_ms = [row.collaborate_ms for row in self.rows]
        return max(times_ms) / min(times_ms) - 1

    @property
    def is_missed(self) -> bool:
        return self.share > FLAT


class Models:
    """The real pair, loaded once. Prompts by name: two of its own, and the others' texts in a row up to half the context."""

    def __init__(self) -> None:
        self._pair: Pair = load_pair()
        self._config = VerifierConfig(cloud=DEFAULT_CLOUD)
        self._full: FullModel = build_engine(self._config)
        texts = [str(prompt["text"]) for prompt in self._pair.prompts]
        self._warm_up = texts[1]
        self.prompts: Mapping[str, str] = {
            "a word": texts[0].split()[0],
            "short": texts[0],
            "long": self._cut("\n".join(texts), self._pair.full.context_length // 2),
            "longest": self._cut("\n".join(texts), self._pair.full.context_length - NUM_TOKENS),
        }

    def first_visible_ms(self, case: Case, round_trip_ms: float, mode: Mode) -> tuple[float, int]:
        """The figure, and how many tokens the prompt has."""
        return virtual_time.run(self._answer(case, round_trip_ms, mode))

    async def _answer(self, case: Case, round_trip_ms: float, mode: Mode) -> tuple[float, int]:
        async with self._agent(case.config, round_trip_ms) as agent:
            await last_event(agent, StreamRequest(self._warm_up, max_tokens=1))
            done = await last_event(agent, StreamRequest(self.prompts[case.prompt], max_tokens=NUM_TOKENS, mode=mode))
        return float(done.figures["first_visible_ms"]["value"]), len(done.prompt_token_ids)

    @asynccontextmanager
    async def _agent(self, config: AgentConfig, round_trip_ms: float) -> AsyncIterator[DeviceAgent]:
        """The production agent and verifier with a delay line between them."""
        full = self._full
        verifier = Verifier(EngineRunner(full.engine), full.identity, full.self_test, self._config)
        cost = PhoneCost(profiles.phone(config.phone), parse_model(config.emulate))
        engine = shape(draft_engine(self._pair.draft, config), cost)
        connector = ShapedConnector(MemoryConnector(verifier), delay_line(round_trip_ms))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(verifier.run())
            async with DeviceAgent(facts_of(self._pair, engine), EngineRunner(engine), connector, config) as agent:
                yield agent
            verifier.stop()

    def _cut(self, text: str, num_tokens: int) -> str:
        tokenizer = self._pair.full.tokenizer
        cut: str = tokenizer.decode(tokenizer.encode(text).ids[:num_tokens])
        return cut


def emulated() -> list[str]:
    """Phones that a draft takes time on."""
    return [phone for phone in profiles.phones() if phone != UNSHAPED]


def all_cases(prompts: Sequence[str]) -> list[Case]:
    return [
        Case(phone, model, policy, prompt)
        for phone in emulated()
        for model in MODELS
        for policy in POLICIES
        for prompt in prompts
    ]


def few(cases: Sequence[Case]) -> list[Case]:
    """The default policy and the small draft, with the shortest prompt and the longest."""
    return [c for c in cases if (c.policy, c.model) == (ADAPTIVE, MODELS[0]) and c.prompt in ("a word", "longest")]


def measure(models: Models, cases: Sequence[Case], round_trips_ms: Sequence[float]) -> list[Row]:
    """Every case over every round trip, with a bar that tells how far it is."""
    runs = [(case, round_trip_ms) for case in cases for round_trip_ms in round_trips_ms]
    with Progress(transient=True) as progress:
        return [_row(models, *run) for run in progress.track(runs, description="first tokens")]


def _row(models: Models, case: Case, round_trip_ms: float) -> Row:
    modes = (Mode.COLLABORATE, Mode.DEVICE, Mode.CLOUD)
    found = {mode: models.first_visible_ms(case, round_trip_ms, mode) for mode in modes}
    (together_ms, num_tokens), (device_ms, _), (cloud_ms, _) = found[Mode.COLLABORATE], found[Mode.DEVICE], found[Mode.CLOUD]
    return Row(case, num_tokens, round_trip_ms, together_ms, device_ms, cloud_ms)


def spreads(rows: Sequence[Row]) -> Iterator[Spread]:
    """One for each case in which the device is first over two round trips at least."""
    for case in dict.fromkeys(row.case for row in rows):
        first = [row for row in rows if row.case == case and row.is_device_first]
        if len(first) > 1:
            yield Spread(first)


def grids(rows: Sequence[Row]) -> list[Grid]:
    found = list(spreads(rows))
    num_met, num_flat = sum(not row.is_missed for row in rows), sum(not spread.is_missed for spread in found)
    return [
        Grid(
            "Emulated: first visible token, ms after the request, the bundled pair's tokens at temperature 0, warm connection,"
            f" {DEFAULT_CLOUD} with {DEFAULT_FULL_MODEL}; never behind either alone in {num_met} of {len(rows)} rows",
            (*COLUMNS, "together", "first alone", ""),
            [_cells(row) for row in rows],
        ),
        Grid(
            f"Emulated: over the round trips where the device alone is first, within {FLAT:.0%} in {num_flat} of {len(found)}",
            SPREAD,
            [_spread_cells(spread) for spread in found],
        ),
    ]


def _cells(row: Row) -> list[str]:
    times_ms = (row.device_ms, row.cloud_ms, row.collaborate_ms)
    first = "device" if row.is_device_first else "cloud"
    head = [*_head(row), f"{row.round_trip_ms:g}"]
    return [*head, *(f"{time_ms:.2f}" for time_ms in times_ms), first, "MISS" if row.is_missed else ""]


def _spread_cells(spread: Spread) -> list[str]:
    times_ms = [row.collaborate_ms for row in spread.rows]
    where = ", ".join(f"{row.round_trip_ms:g}" for row in spread.rows)
    together = f"{min(times_ms):.2f} to {max(times_ms):.2f}"
    return [*_head(spread.rows[0]), where, together, f"{spread.share:.2%}", "MISS" if spread.is_missed else ""]


def _head(row: Row) -> list[str]:
    case = row.case
    return [case.phone, case.model, case.policy, case.prompt, str(row.prompt_tokens)]


def to_json(row: Row) -> dict[str, object]:
    return asdict(row) | {"is_missed": row.is_missed, "is_device_first": row.is_device_first}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument(
        "--phone", nargs="+", choices=emulated(), default=[DEFAULT_PHONE], metavar="NAME", help=f"{DEFAULT_PHONE} by default"
    )
    arguments = parser.parse_args()
    models = Models()
    cases = [case for case in all_cases(list(models.prompts)) if case.phone in arguments.phone]
    rows = measure(models, few(cases), ENDS_MS) if arguments.quick else measure(models, cases, ROUND_TRIPS_MS)
    publish(arguments, BLOCK, grids(rows), [to_json(row) for row in rows])


if __name__ == "__main__":
    main()
