"""The systems of the capacity table, the settings that each may choose from, and one measurement of one of them.

What is charged: a 70B in FP8 on one H200 whose matrix units compute in FP8, keys and values in 16 bits, 512 tokens of prompt
held for each session; drafts come from a phone over a mobile network, or from the same draft model on the same H200.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.capacity_scene import Load, Scene, lead_tokens, most_tokens, run
from benchmarks.roofline import MOST_DRAFTS, HeldContext, HeldOnPhone, free_rows, tokens_a_pass
from cloud_verifier.config import VerifierConfig
from cloud_verifier.costs import PassShape
from cloud_verifier.patience import NEVER, PatienceSetting
from device_agent.config import AgentConfig
from device_agent.request import Mode
from outrider.planning.sources import Synthetic
from outrider.planning.synthetic import Acceptance
from speculation.shaping import profiles
from speculation.shaping.costs import Work, step_time_s
from speculation.shaping.models import parse_model
from speculation.shaping.profiles import DEFAULT_DRAFT_MODEL, DEFAULT_NETWORK, DEFAULT_PHONE, CloudProfile

ACCEPTANCE = 0.8
FULL_MODEL, CLOUD_MODEL = "70B:fp8", "h200"
FP8_OPERATIONS_PER_S = 1979e12
"""NVIDIA H200 SXM data sheet: peak FP8 matrix, dense. The profile's own figure is that of FP16, half of it."""

PROMPT_TOKENS = 512
KEY_TOKENS = 2
"""Tokens of prompt that are really sent: enough to give every device another text. The others are only charged."""

ALONE, INSIDE, WAITING = "decoding alone", "inside the cloud", "stop and wait"
OURS, PACED, PRICED = "ours, not paced", "ours, paced, all drafts", "ours, paced, drafts that pay"
SYSTEMS = (ALONE, INSIDE, WAITING, OURS, PACED, PRICED)
RATES = (20.0, 30.0)
"""Final tokens a second that a device must get."""

AGENT = AgentConfig()
DEPTHS = {16: (12, 20), 32: (12,), 64: (6, 12)}
DEPTHS_OF_MANY = (3, 6)
"""Drafts ahead of the final tokens that are worth a try where passes are paced: with up to so many devices, and with more."""

MOST_FROM_A_PASS = 4.5
"""Tokens: drafts that are many are right one after the other only so long."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run one system. ``is_priced``: the verifier knows what a pass costs, and runs the drafts that pay."""

    system: str
    name: str
    agent: AgentConfig = AGENT
    patience: PatienceSetting = 0.0
    gather: int = 1
    draft_length: int = 0
    pass_interval_ms: float = 0.0
    is_priced: bool = False
    mode: Mode = Mode.COLLABORATE


@dataclass(frozen=True, slots=True)
class Point:
    """What a setting reached with so many devices."""

    setting: Setting
    num_devices: int
    load: Load


@dataclass(frozen=True, slots=True)
class Search:
    """What is tried, and how much is counted.

    ``lengths`` inside the cloud and of stop-and-wait; ``waits`` of the verifier as it is: patience in milliseconds, gather, and
    whether only drafts that pay are run; ``around`` are shares of the interval between passes at which a rate should just be
    held.
    ``num_tokens`` are final tokens of all devices together, of each one between the least and the most.
    """

    lengths: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)
    waiting_lengths: tuple[int, ...] = (4, 6, 8, 12, 16)
    waits: tuple[tuple[PatienceSetting, int, bool], ...] = ((0.0, 1, False), (0.0, 1, True), (NEVER, 2, True))
    around: tuple[float, ...] = (0.8, 0.9, 1.0)
    num_tokens: int = 4096
    least_tokens: int = 16
    most_tokens: int = 1500

    def tokens_each(self, num_devices: int) -> int:
        return min(self.most_tokens, max(self.least_tokens, self.num_tokens // num_devices))


def settings(system: str, num_devices: int, search: Search) -> list[Setting]:
    """Those that a system may choose from."""
    if system in (PACED, PRICED):
        return [_paced(system, *tried) for tried in itertools.product(depths(num_devices), intervals_ms(num_devices, search))]
    return {
        ALONE: [Setting(ALONE, "every session in every pass", mode=Mode.CLOUD)],
        INSIDE: [Setting(INSIDE, f"{length} drafts", draft_length=length, mode=Mode.CLOUD) for length in search.lengths],
        WAITING: [_waiting(length) for length in search.waiting_lengths],
        OURS: [_as_it_is(*wait) for wait in search.waits],
    }[system]


def intervals_ms(num_devices: int, search: Search) -> list[float]:
    """Milliseconds between passes that are worth a try, in rising order: a device gets so many tokens of a pass as there are
    free rows for, but hardly more than ``MOST_FROM_A_PASS``."""
    rows = free_rows(full_cost(), num_devices, mean_context(search.tokens_each(num_devices)))
    from_a_pass = min(MOST_FROM_A_PASS, tokens_a_pass(ACCEPTANCE, num_devices, rows) / num_devices)
    return sorted(float(round(1000 * share * from_a_pass / rate)) for rate in RATES for share in search.around)


def _waiting(length: int) -> Setting:
    agent = AgentConfig(drafting="fixed-length", draft_length=length)
    return Setting(WAITING, f"{length} drafts", agent, NEVER)


def depths(num_devices: int) -> tuple[int, ...]:
    """Nobody needs drafts that are far deeper than a pass can take of them."""
    return next((tried for most, tried in DEPTHS.items() if num_devices <= most), DEPTHS_OF_MANY)


def _paced(system: str, depth: int, interval_ms: float) -> Setting:
    name = f"{interval_ms:g} ms apart, {depth} deep"
    agent = AgentConfig(draft_depth=depth)
    return Setting(system, name, agent, pass_interval_ms=interval_ms, is_priced=system == PRICED)


def _as_it_is(patience: PatienceSetting, gather: int, is_priced: bool) -> Setting:
    told = patience if patience == NEVER else f"{patience:g} ms"
    name = f"patience {told}, gather {gather}" if patience else "patience 0"
    return Setting(OURS, name + ", drafts that pay" * is_priced, patience=patience, gather=gather, is_priced=is_priced)


@dataclass(frozen=True, slots=True)
class HeldCosts:
    """What the verifier is told of its passes: the roofline's cost, held contexts read, too."""

    cost: HeldContext

    def seconds(self, shape: PassShape) -> float:
        held = shape.num_sessions * self.cost.held_tokens
        return step_time_s(self.cost.machine, self.cost.model, [Work(held + shape.num_cached, shape.num_rows)])


@functools.cache
def machine() -> CloudProfile:
    """The H200 that computes in FP8."""
    return dataclasses.replace(profiles.cloud(CLOUD_MODEL), operations_per_s=FP8_OPERATIONS_PER_S)


@functools.cache
def full_cost() -> HeldContext:
    return HeldContext(machine(), parse_model(FULL_MODEL), PROMPT_TOKENS)


@functools.cache
def phone_cost() -> HeldOnPhone:
    return HeldOnPhone(profiles.phone(DEFAULT_PHONE), parse_model(DEFAULT_DRAFT_MODEL), PROMPT_TOKENS)


@functools.cache
def cloud_draft_cost() -> HeldContext:
    """The phone's draft model beside the full one."""
    return HeldContext(machine(), parse_model(DEFAULT_DRAFT_MODEL), PROMPT_TOKENS)


def mean_context(num_tokens: int) -> int:
    """Tokens that a session holds half-way through what is counted of its answer."""
    return PROMPT_TOKENS + KEY_TOKENS + lead_tokens(num_tokens) + num_tokens // 2


def measure(case: tuple[str, int], search: Search) -> list[Point]:
    """Runs of one system with so many devices.

    Passes that are paced faster than they run are not paced, and where no rate is held they need not be farther apart: such
    settings are left out.
    """
    system, num_devices = case
    by_depth = itertools.groupby(settings(system, num_devices, search), key=lambda setting: setting.agent.draft_depth)
    return [point for _, tried in by_depth for point in _measure_in_turn(tried, num_devices, search)]


def _measure_in_turn(tried: Iterable[Setting], num_devices: int, search: Search) -> list[Point]:
    points: list[Point] = []
    for setting in tried:
        if points and 0 < setting.pass_interval_ms < points[-1].load.pass_ms:
            continue
        points.append(Point(setting, num_devices, run(scene(setting, num_devices, search.tokens_each(num_devices)))))
        if setting.pass_interval_ms and points[-1].load.tokens_per_s < min(RATES):
            break
    return points


def scene(setting: Setting, num_devices: int, num_tokens: int) -> Scene:
    """All that meets in a run."""
    return Scene(
        phone=phone_cost(),
        network=profiles.network(DEFAULT_NETWORK),
        full=full_cost(),
        cloud_draft=cloud_draft_cost(),
        source=Synthetic(Acceptance(ACCEPTANCE), KEY_TOKENS + most_tokens(num_tokens) + 1, KEY_TOKENS),
        num_devices=num_devices,
        num_tokens=num_tokens,
        agent=setting.agent,
        verifier=verifier_config(setting, num_devices),
        mode=setting.mode,
        costs=HeldCosts(full_cost()) if setting.is_priced else None,
    )


def verifier_config(setting: Setting, num_devices: int) -> VerifierConfig:
    """The flags of the verifier: room for all sessions, and for all their drafts."""
    return VerifierConfig(
        num_slots=num_devices + 1,
        max_sessions=num_devices + 1,
        max_rows=num_devices * (1 + MOST_DRAFTS),
        patience=setting.patience,
        gather=setting.gather,
        draft_length=setting.draft_length,
        pass_interval_ms=setting.pass_interval_ms,
    )
