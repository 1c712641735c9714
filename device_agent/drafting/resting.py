"""When a device rests: where its tokens come faster without its drafts. Pure; times in seconds.

Beside a pass of a millisecond or two drafts are not free: the verifier's loop reads their messages between two passes, rows add
to a pass, and on a shared core the draft model and the full one wait for each other. What that costs nobody knows beforehand,
so it is measured. Verdicts are counted in spells: a long one that drafts or rests, whichever brought more tokens a second
lately, then a short one of the other kind, which is compared. While the outcome stays the same the long spells grow longer;
where drafts hardly ever save a pass the first is the longest: there is little to be found out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from device_agent.drafting.gathering import SHORTEST_PASS_S, Schedule

SETTLING = 8
"""Verdicts of a spell that do not count: drafts of the last one are still on their way, or those of this one not yet there."""

TRIAL = 40
"""Verdicts of a short spell."""

SHORTEST_SPELL, LONGEST_SPELL = 160, 2560
"""Verdicts of a long spell: the first after a change, and the most that doubling makes of it."""

FADING = 0.5
"""What a new spell leaves of what earlier ones of its kind measured."""

HOPELESS = 1.1
"""Tokens a verdict that drafts must bring to be tried soon again: with fewer they could win a tenth at best."""

LONGEST_SHARE = 8.0
"""An interval counts at most as so many of the middle ones: beyond, something else held the machine up."""


@dataclass(slots=True)
class _Rate:
    """Verdicts, tokens and seconds of one kind of spell; older ones fade."""

    verdicts: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0

    def fade(self) -> None:
        self.verdicts *= FADING
        self.tokens *= FADING
        self.seconds *= FADING

    def add(self, num_tokens: int, seconds: float) -> None:
        self.verdicts += 1
        self.tokens += num_tokens
        self.seconds += seconds

    def is_above(self, other: _Rate) -> bool:
        return self.tokens * other.seconds > other.tokens * self.seconds


class Resting:
    """Whether to rest, by the verdicts of all streams of an agent that draw their tokens alike (greedy, or sampled)."""

    def __init__(self) -> None:
        self.is_resting = False
        self._rates = {is_resting: _Rate() for is_resting in (False, True)}
        self._is_trial = False
        self._found: bool | None = None
        self._long_spell = SHORTEST_SPELL
        self._spell = self._left = TRIAL
        self._pass_s: float | None = None

    def verdict(self, num_tokens: int, interval_s: float, pass_s: float | None) -> None:
        """A verdict brought so many tokens, so long after its stream's last one. Nothing is learned beside long passes."""
        self._pass_s = pass_s or self._pass_s
        if not _is_short(pass_s):
            return
        self._left -= 1
        if self._spell - self._left > SETTLING:
            self._rates[self.is_resting].add(num_tokens, min(interval_s, LONGEST_SHARE * pass_s))
        if not self._left:
            self._begin_next()

    def is_due(self, num_verdicts: int, has_drafted: bool, pass_s: float | None) -> bool:
        """Whether a stream that has had so many verdicts leaves drafting alone until the next.

        Before its first verdict it does so once it ``has_drafted``: that word is shown at once, and more would only take time
        from the verifier's own first pass. While its own passes are not known (two verdicts that came together tell
        nothing), those of the agent's last stream are taken. Nowhere beside long passes: drafts share messages there, and a
        message is next to nothing of a pass.
        """
        is_begun = has_drafted or num_verdicts > 0
        return self.is_resting and is_begun and _is_short(pass_s or self._pass_s)

    def _begin_next(self) -> None:
        self._is_trial = not self._is_trial
        if self._is_trial:
            self.is_resting, self._spell = not self.is_resting, TRIAL
        else:
            self._decide()
        self._left = self._spell
        self._rates[self.is_resting].fade()

    def _decide(self) -> None:
        """Between what this trial and the spells before it brought."""
        drafting, resting = self._rates[False], self._rates[True]
        found = resting.is_above(drafting)
        if found and drafting.tokens < HOPELESS * drafting.verdicts:
            self._long_spell = LONGEST_SPELL
        else:
            self._long_spell = min(2 * self._long_spell, LONGEST_SPELL) if found is self._found else SHORTEST_SPELL
        self._found, self.is_resting, self._spell = found, found, self._long_spell


class Rest:
    """One stream's part: what it tells its ``Resting``, and when it rests by that. Never where ``is_allowed`` is false."""

    def __init__(self, resting: Resting, is_allowed: bool) -> None:
        self._resting = resting
        self._is_allowed = is_allowed
        self._num_verdicts = 0
        self._verdict_s: float | None = None

    def settled(self) -> None:
        """Tokens became final."""
        self._num_verdicts += 1

    def came(self, num_tokens: int, now_s: float, pass_s: float | None) -> None:
        """A verdict did, with so many tokens, to a stream that may draft."""
        if self._verdict_s is not None and self._is_allowed:
            self._resting.verdict(num_tokens, now_s - self._verdict_s, pass_s)
        self._verdict_s = now_s

    def broke_off(self) -> None:
        """The conversation did: how long that is tells nothing of verdicts."""
        self._verdict_s = None

    def is_due(self, has_drafted: bool, schedule: Schedule) -> bool:
        """Whether the stream leaves drafting alone until the next verdict. Never where a verifier waits for drafts."""
        if not self._is_allowed or schedule.is_waited_for:
            return False
        return self._resting.is_due(self._num_verdicts, has_drafted, schedule.pass_s)


def _is_short(pass_s: float | None) -> TypeGuard[float]:
    return pass_s is not None and 0 < pass_s < SHORTEST_PASS_S
