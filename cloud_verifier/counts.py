"""What a verifier counts, what its observer does, and the times of one session. Pure: times are arguments, in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_POSITIONS = 32
"""Positions of a chain that are counted one by one: figures of their own, whose number has to be bounded."""


@dataclass(slots=True)
class VerifierStatistics:
    """Counted since the start. ``rows`` are tokens fed to the full model, prompts included.

    ``own_proposed`` are tokens that the verifier's own draft model drafted and a pass checked, ``own_accepted`` those that
    agreed; no session's usage holds them. Bytes are those of messages over gRPC.
    """

    sessions: int = 0
    passes: int = 0
    rows: int = 0
    own_proposed: int = 0
    own_accepted: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass(slots=True)
class Counts:
    """Counted since the start. ``refused`` by status, ``ended`` by reason, ``final_tokens`` by tenant, ``opened_by_pair`` by
    counter, ``refused_pairs`` by which was asked for.

    A chain is what a pass ran of one session's drafts, whoever drafted them; ``accepted_at`` counts, by place in the chain,
    the drafts that equal the choices.
    """

    refused: Counter[str]
    ended: Counter[str]
    final_tokens: Counter[str]
    opened: int = 0
    prompt_tokens: int = 0
    chains: int = 0
    drafted: int = 0
    accepted: int = 0
    corrections: int = 0
    near_ties: int = 0
    opened_by_pair: Counter[str] = field(default_factory=Counter)
    refused_pairs: Counter[str] = field(default_factory=Counter)
    accepted_at: list[int] = field(default_factory=lambda: [0] * MAX_POSITIONS)

    @classmethod
    def zero(cls, statuses: Iterable[str], reasons: Iterable[str]) -> Counts:
        """Statuses and reasons that are known beforehand are there from the start: so their first is an increase."""
        return cls(Counter(dict.fromkeys(statuses, 0)), Counter(dict.fromkeys(reasons, 0)), Counter())

    def chain(self, num_drafted: int, num_accepted: int) -> None:
        """A chain was run."""
        self.chains += 1
        self.drafted += num_drafted
        self.accepted += num_accepted
        for place in range(min(num_accepted, MAX_POSITIONS)):
            self.accepted_at[place] += 1


@dataclass(slots=True)
class Times:
    """When what happened to one session: opened, first in a pass, first and last choice."""

    opened_s: float
    entered_s: float | None = None
    first_s: float | None = None
    last_s: float = 0.0
    num_tokens: int = 0

    @property
    def decode_s(self) -> float | None:
        """From the first choice to the last; None before the first."""
        return None if self.first_s is None else self.last_s - self.first_s

    @property
    def token_s(self) -> float | None:
        """What each token behind the first took, in the mean; None where there was none."""
        decode_s = self.decode_s
        return None if decode_s is None or self.num_tokens < 2 else decode_s / (self.num_tokens - 1)
