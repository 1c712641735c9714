"""What the devices of the soak do, drawn from a seed: how a session goes, and when a device is there at all. Pure."""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence
from dataclasses import dataclass

WAVE_S = 60.0
SHARE_SAMPLED, SHARE_WITHOUT_DRAFTS = 0.25, 0.125
MEAN_PAUSE_S = 0.5
DEADLINE_MS = (50, 4000)
READ_DELAY_S = (0.02, 0.2)
LEAST_TOKENS = 8


class Behaviour(enum.StrEnum):
    """How a session goes."""

    FINISH = "reads to the end"
    CANCEL = "cancels"
    VANISH = "is cut and never comes back"
    RESUME = "is cut and resumes"
    HALF_CLOSE = "closes its sending side"
    DEADLINE = "has a deadline"
    SLOW = "reads slowly"
    OVERTAKE = "is overtaken by a later attempt"


class End(enum.StrEnum):
    """How a session ended, as its device saw it."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    DEADLINE = "deadline passed"
    CUT = "cut by the device"
    REFUSED = "refused to the last"
    BROKEN = "another error"
    NONE = "no end"


CUTS = (Behaviour.VANISH, Behaviour.RESUME)
WEIGHTS = {behaviour: 4 if behaviour is Behaviour.FINISH else 1 for behaviour in Behaviour}
ALLOWED: dict[Behaviour, frozenset[End]] = {
    Behaviour.CANCEL: frozenset({End.CANCELLED, End.FINISHED}),
    Behaviour.VANISH: frozenset({End.CUT, End.FINISHED}),
    Behaviour.DEADLINE: frozenset({End.DEADLINE, End.FINISHED}),
}
"""Ends that a behaviour asks for, next to being refused; the others are to finish. A text may be over before its turn comes."""


def is_allowed(behaviour: Behaviour, end: End) -> bool:
    return end is End.REFUSED or end in ALLOWED.get(behaviour, frozenset({End.FINISHED}))


@dataclass(frozen=True, slots=True)
class Course:
    """One session: which text and how much of it, drafts or none, and what happens once ``turn`` of its tokens are final."""

    behaviour: Behaviour
    is_sampled: bool
    text: int
    share: float
    turn_share: float
    has_drafts: bool
    pause_s: float
    deadline_ms: int | None = None
    read_delay_s: float = 0.0

    def max_tokens(self, length: int) -> int:
        """Of a text of ``length`` tokens."""
        return min(length, max(LEAST_TOKENS, round(self.share * length)))

    def turn(self, length: int) -> int:
        """Tokens that are final when the device does what it does; at least none, at most all but one."""
        return int(self.turn_share * self.max_tokens(length))


def draw(seed: int, device: int, index: int, num_texts: Sequence[int]) -> Course:
    """A device's session number ``index``; ``num_texts`` are the greedy texts and the sampled ones."""
    chance = random.Random(f"{seed}/{device}/{index}")
    behaviour = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    is_sampled = chance.random() < SHARE_SAMPLED
    return Course(
        behaviour=behaviour,
        is_sampled=is_sampled,
        text=chance.randrange(num_texts[is_sampled]),
        share=chance.random(),
        turn_share=chance.random(),
        has_drafts=chance.random() >= SHARE_WITHOUT_DRAFTS,
        pause_s=chance.expovariate(1 / MEAN_PAUSE_S),
        deadline_ms=chance.randint(*DEADLINE_MS) if behaviour is Behaviour.DEADLINE else None,
        read_delay_s=chance.uniform(*READ_DELAY_S) if behaviour is Behaviour.SLOW else 0.0,
    )


def away_s(device: int, count: int, at_s: float) -> float:
    """How long a device stays away from now on: of ``count`` the first half is always there, the others every second wave."""
    wave, within_s = divmod(at_s, WAVE_S)
    return WAVE_S - within_s if 2 * device >= count and wave % 2 else 0.0
