"""From what the draft says of itself to how often it is right, learned from verdicts. Pure.

Per confidence bin, the posterior mean of a Bernoulli rate whose Beta prior stands at the confidence itself: a draft that nobody
has checked is taken at its word, and every comparison moves its bin. First and second choices have tables of their own, and so
have greedy and sampled requests. (Reliability by binning: Zadrozny and Elkan 2001; the prior keeps thin bins sane.)

A second choice matters only where the first is wrong, so its table asks how often it is right *then*, by its share of what the
first leaves. A choice that is the largest cannot say that another is likelier; this can show it. A third choice is asked the
same of where both are wrong, and so on: chances of one position never add up to more than 1. The third and all behind it share
a table, for comparisons get few there, and at one share of what is left they are right about as often.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat

from device_agent.drafting.branches import Proposal

NUM_BINS = 20
PRIOR_STRENGTH = 16.0
"""Comparisons that the draft's own word is worth in each bin."""

NUM_BINS_OF_SECONDS, PRIOR_STRENGTH_OF_SECONDS = 10, 8.0
"""Only misses teach of second choices, and of those behind: half as many bins, and half as much to outweigh, let them learn as
quickly."""

MEMORY = 4000.0
"""Comparisons a bin remembers; older ones fade, so that another kind of text is learned too."""


class Table:
    """One choice's reliability."""

    def __init__(self, num_bins: int = NUM_BINS, prior_strength: float = PRIOR_STRENGTH) -> None:
        self._prior_strength = prior_strength
        self._hits = [0.0] * num_bins
        self._tries = [0.0] * num_bins
        self._said = [0.0] * num_bins

    def observe(self, confidence: float, is_right: bool) -> None:
        index = self._bin(confidence)
        if self._tries[index] >= MEMORY:
            for counts in (self._hits, self._tries, self._said):
                counts[index] /= 2
        self._hits[index] += is_right
        self._tries[index] += 1
        self._said[index] += confidence

    def chance(self, confidence: float) -> float:
        """The confidence, moved by what its bin is off on average."""
        index = self._bin(confidence)
        tries = self._tries[index]
        off = (self._hits[index] - self._said[index]) / (tries + self._prior_strength)
        return min(1.0, max(0.0, confidence + off))

    def _bin(self, confidence: float) -> int:
        return min(len(self._hits) - 1, int(confidence * len(self._hits)))


class Calibration:
    """Tables for a device's draft, shared by its streams."""

    def __init__(self) -> None:
        self._firsts = {is_greedy: Table() for is_greedy in (False, True)}
        self._seconds, self._others = ({is_greedy: _table_of_seconds() for is_greedy in (False, True)} for _ in range(2))

    def chances(self, proposal: Proposal, is_greedy: bool) -> list[float]:
        """That the full model takes each of the draft's choices."""
        chances, left = [], 1.0
        for table, share in self._asked(proposal, is_greedy):
            chances.append(left * table.chance(share))
            left -= chances[-1]
        return chances

    def observe(self, proposal: Proposal, token_id: int, is_greedy: bool) -> None:
        """The full model took a token where the draft proposed this."""
        for choice, (table, share) in zip(proposal.token_ids, self._asked(proposal, is_greedy), strict=True):
            table.observe(share, token_id == choice)
            if token_id == choice:
                return

    def _asked(self, proposal: Proposal, is_greedy: bool) -> Iterator[tuple[Table, float]]:
        """Each choice's table, and its confidence as a share of what those before it leave."""
        left = 1.0
        tables = chain((self._firsts[is_greedy], self._seconds[is_greedy]), repeat(self._others[is_greedy]))
        for table, confidence in zip(tables, proposal.confidences, strict=False):
            yield table, min(1.0, confidence / left) if left > 0 else 0.0
            left -= confidence


def _table_of_seconds() -> Table:
    return Table(NUM_BINS_OF_SECONDS, PRIOR_STRENGTH_OF_SECONDS)
