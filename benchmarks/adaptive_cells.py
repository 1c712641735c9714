"""One cell of the search: every fixed setting and ``adaptive`` in the same world, on the same draw, by what they cost.

The score of an answer is one time a token, lower is better::

    seconds + s_per_joule * joules + s_per_byte * bytes        (each a final token's)

An exhaustive search takes the best of many on the very draw that it is judged by, so it flatters the fixed settings a little.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.adaptive_worlds import PHONE_W, Half, Spent, World, answered
from device_agent.config import AgentConfig

DEPTHS, WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 32), (1, 2, 4)
FLOORS = (0.05, 0.1, 0.2, 0.4)
MOST_OVER_BEST = 1.03
"""Adaptive is at most this far above the best fixed setting of a cell that stays as it is."""

DRAFTS_MS, PASSES_MS, ROUND_TRIPS_MS = (9.0, 18.0), (30.0, 60.0), (20.0, 60.0, 150.0, 300.0)
ALPHAS = (0.6, 0.8, 0.95)
ROWS_IN_A_PASS = 60
"""Rows that double a pass: 1 ms a row on 60 ms, 0.5 on 30."""

SHIFTS = (
    (Half(20.0, 0.9), Half(200.0, 0.5)),
    (Half(200.0, 0.5), Half(20.0, 0.9)),
    (Half(20.0, 0.6), Half(300.0, 0.95)),
)


@dataclass(frozen=True, slots=True)
class Price:
    """What else is worth waiting for: seconds for a joule, seconds for a byte sent."""

    name: str
    s_per_joule: float
    s_per_byte: float

    @property
    def draft_price(self) -> float:
        """Seconds of waiting that a second of drafting is worth: what a user would set."""
        return self.s_per_joule * PHONE_W

    def score_ms(self, spent: Spent) -> float:
        """Milliseconds a token, all in all."""
        return 1000 * (spent.seconds + self.s_per_joule * spent.joules + self.s_per_byte * spent.sent_bytes)


PRICES = (Price("nearly free", 0.004, 1e-6), Price("neither", 0.015, 3e-6), Price("dear", 0.06, 1e-5))
"""The outer two were chosen with results of draw 0 at hand. The one between them, about their geometric mean, was not: it shows
whether the rule hangs on them."""

DRAW = 3
"""Draws 0 to 2 of the process were looked at while the rule was made; the tables use another."""


@dataclass(frozen=True, slots=True)
class Runs:
    """How much is run: tokens of an answer, the second for a world that shifts; and which fixed settings are searched."""

    num_tokens: int = 300
    num_tokens_of_shift: int = 600
    depths: Sequence[int] = DEPTHS


@dataclass(frozen=True, slots=True)
class Found:
    """At one price: the best fixed setting, and adaptive. Scores in ms a token."""

    best: str
    best_ms: float
    best_spent: Spent
    ours_ms: float
    ours_spent: Spent

    @property
    def ratio(self) -> float:
        return self.ours_ms / self.best_ms


@dataclass(frozen=True, slots=True)
class Row:
    """One world, by the names of the prices."""

    world: World
    found: Mapping[str, Found]

    @property
    def misses(self) -> list[str]:
        """Prices at which adaptive is not near the best fixed setting, or not ahead of it where the world shifts."""
        if self.world.is_shifting:
            return [name for name, found in self.found.items() if found.ratio >= 1]
        return [name for name, found in self.found.items() if found.ratio > MOST_OVER_BEST]

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"ratios": {name: found.ratio for name, found in self.found.items()}, "misses": self.misses}


def fixed_settings(depths: Sequence[int] = DEPTHS) -> dict[str, AgentConfig]:
    """All settings of the search, by what they are called."""
    settings = {}
    for depth, width in itertools.product(depths, WIDTHS):
        policy = "ahead" if width == 1 else "second-branch"
        settings[f"{depth} deep, {width} wide"] = AgentConfig(drafting=policy, draft_depth=depth, draft_width=width)
    return settings | {f"gate {floor:g}": AgentConfig(drafting="confidence-gate", draft_floor=floor) for floor in FLOORS}


def adaptive(draft_price: float) -> AgentConfig:
    """As wide as the widest fixed setting may be."""
    return AgentConfig(drafting="adaptive", draft_width=max(WIDTHS), draft_price=draft_price)


def world(draft_ms: float, pass_ms: float, first: Half, second: Half | None = None) -> World:
    return World(draft_ms, pass_ms, pass_ms / ROWS_IN_A_PASS, first, second or first)


def steady_worlds() -> list[World]:
    timings = itertools.product(DRAFTS_MS, PASSES_MS, ROUND_TRIPS_MS, ALPHAS)
    return [world(draft_ms, pass_ms, Half(round_trip_ms, alpha)) for draft_ms, pass_ms, round_trip_ms, alpha in timings]


def shifting_worlds() -> list[World]:
    return [world(draft_ms, pass_ms, *shift) for draft_ms, pass_ms in ((9.0, 60.0), (18.0, 30.0)) for shift in SHIFTS]


def few_worlds() -> list[World]:
    """A near and a far cell, and one that shifts."""
    return [world(9.0, 60.0, Half(60.0, 0.8)), world(18.0, 30.0, Half(150.0, 0.95)), world(9.0, 60.0, *SHIFTS[0])]


def measure(where: World, runs: Runs) -> Row:
    """The search in one world; depends on nothing but its arguments."""
    num_tokens = runs.num_tokens_of_shift if where.is_shifting else runs.num_tokens
    fixed = {name: answered(where, config, DRAW, num_tokens) for name, config in fixed_settings(runs.depths).items()}
    return Row(where, {price.name: _found(where, price, fixed, num_tokens) for price in PRICES})


def _found(where: World, price: Price, fixed: Mapping[str, Spent], num_tokens: int) -> Found:
    best = min(fixed, key=lambda name: price.score_ms(fixed[name]))
    ours = answered(where, adaptive(price.draft_price), DRAW, num_tokens)
    return Found(best, price.score_ms(fixed[best]), fixed[best], price.score_ms(ours), ours)
