"""From what the draft says of itself to how often it is right, learned from verdicts. Pure.

Per confidence bin, the posterior mean of a Bernoulli rate whose Beta prior stands at the confidence itself: a draft that nobody
has checked is taken at its word, and every comparison moves its bin. First and second choices have tables of their own, and so
have greedy and sampled requests. (Reliability by binning: Zadrozny and Elkan 2001; the prior keeps thin bins sane.)
"""

from __future__ import annotations

NUM_BINS = 20
PRIOR_STRENGTH = 16.0
"""Comparisons that the draft's own word is worth in each bin."""

MEMORY = 4000.0
"""Comparisons a bin remembers; older ones fade, so that another kind of text is learned too."""


class Table:
    """One choice's reliability."""

    def __init__(self) -> None:
        self._hits = [0.0] * NUM_BINS
        self._tries = [0.0] * NUM_BINS
        self._said = [0.0] * NUM_BINS

    def observe(self, confidence: float, is_right: bool) -> None:
        index = _bin(confidence)
        if self._tries[index] >= MEMORY:
            for counts in (self._hits, self._tries, self._said):
                counts[index] /= 2
        self._hits[index] += is_right
        self._tries[index] += 1
        self._said[index] += confidence

    def chance(self, confidence: float) -> float:
        """The confidence, moved by what its bin is off on average."""
        index = _bin(confidence)
        tries = self._tries[index]
        off = (self._hits[index] - self._said[index]) / (tries + PRIOR_STRENGTH)
        return min(1.0, max(0.0, confidence + off))


class Calibration:
    """Tables for a device's draft, shared by its streams."""

    def __init__(self) -> None:
        self._tables = {(rank, is_greedy): Table() for rank in (0, 1) for is_greedy in (False, True)}

    def chance(self, confidence: float, rank: int, is_greedy: bool) -> float:
        """That the full model takes the draft's choice of this rank."""
        return self._tables[rank, is_greedy].chance(confidence)

    def observe(self, confidence: float, rank: int, is_greedy: bool, is_right: bool) -> None:
        self._tables[rank, is_greedy].observe(confidence, is_right)


def _bin(confidence: float) -> int:
    return min(NUM_BINS - 1, int(confidence * NUM_BINS))
