"""How good a draft's proposals are, and how well a signal tells beforehand which of them are right. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.trace_file import FIRST, SECOND, Trace

NUM_BINS = 10

Booleans = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """Proposals with a signal in one tenth of 0 to 1: how many, the signal's mean, the share that agreed (None of none)."""

    count: int
    mean_signal: float | None
    agreement: float | None


@dataclass(frozen=True, slots=True)
class Signal:
    """How well a signal tells agreement.

    ``auc``: the chance that it is higher for a proposal that agrees than for one that does not; ``calibration_error`` the
    expected one over ``bins``, ``brier`` the mean squared error.
    """

    name: str
    temperature: float
    auc: float
    auc_error: float
    calibration_error: float
    brier: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Lead:
    """By how much one signal's AUC is above another's, with its standard error over prompts."""

    auc: float
    error: float


@dataclass(frozen=True, slots=True)
class Path:
    """The draft along the full model's own paths. ``mean_run``: proposals that agree before one that does not.

    ``covered``: the share of misses where the second choice is right, the third, and so on; empty, and ``mean_run`` None, where
    nothing missed.
    """

    temperature: float
    num_prompts: int
    num_tokens: int
    acceptance: float
    acceptance_error: float
    covered: tuple[float, ...]
    mean_run: float | None


def along(traces: Sequence[Trace]) -> Path:
    """Figures of all traces of one temperature."""
    hits = [trace.hits for trace in traces]
    joined, is_at = np.concatenate(hits), np.concatenate([trace.is_at for trace in traces])
    misses = int(np.count_nonzero(~joined))
    return Path(
        temperature=traces[0].temperature,
        num_prompts=len(traces),
        num_tokens=len(joined),
        acceptance=float(joined.mean()),
        acceptance_error=jackknife(lambda kept: float(np.concatenate([hits[i] for i in kept]).mean()), len(hits)),
        covered=tuple(is_at[~joined, SECOND:].mean(axis=0).tolist()) if misses else (),
        mean_run=sum(completed_agreements(h) for h in hits) / misses if misses else None,
    )


def completed_agreements(hits: Booleans) -> int:
    """Proposals that agree in runs that a miss ends: the last run may have been cut by the end of the trace."""
    missed = np.flatnonzero(~hits)
    return int(np.count_nonzero(hits[: missed[-1]])) if len(missed) else 0


def signal(name: str, traces: Sequence[Trace], values: Sequence[Floats]) -> Signal:
    """How well the values, one a proposal and trace, tell which first choices agree."""
    hits = [trace.hits for trace in traces]
    said, right = np.concatenate(values), np.concatenate(hits)
    bins = reliability(said, right)
    return Signal(
        name=name,
        temperature=traces[0].temperature,
        auc=auc(said, right),
        auc_error=jackknife(lambda kept: _auc_of(values, hits, kept), len(hits)),
        calibration_error=calibration_error(bins),
        brier=float(np.mean((said - right) ** 2)),
        bins=bins,
    )


def lead(traces: Sequence[Trace], values: Sequence[Floats], others: Sequence[Floats]) -> Lead:
    """How far the first signal's AUC is above the other's, on the same proposals."""
    hits = [trace.hits for trace in traces]

    def difference(kept: Sequence[int]) -> float:
        return _auc_of(values, hits, kept) - _auc_of(others, hits, kept)

    return Lead(difference(range(len(hits))), jackknife(difference, len(hits)))


def confidences(traces: Sequence[Trace]) -> list[Floats]:
    """The softmax over the scores that the choice is made by, noise included."""
    return [trace.said.confidences[:, FIRST] for trace in traces]


def probabilities(traces: Sequence[Trace]) -> list[Floats]:
    """The draft's probability of its choice at the temperature, without noise."""
    return [trace.probabilities[:, FIRST] for trace in traces]


def auc(values: Floats, right: Booleans) -> float:
    """Area under the ROC curve by ranks (Mann and Whitney 1947); ties count half.

    Raises ``ValueError`` where all agree, or none.
    """
    num_right, num_wrong = int(np.count_nonzero(right)), int(np.count_nonzero(~right))
    if not num_right or not num_wrong:
        raise ValueError(f"{num_right} proposals agree and {num_wrong} do not: no signal can be told by them")
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    above = float(ranks[places][right].sum()) - num_right * (num_right + 1) / 2
    return above / (num_right * num_wrong)


def reliability(values: Floats, right: Booleans) -> tuple[Bin, ...]:
    """Ten bins of equal width."""
    places = np.minimum((values * NUM_BINS).astype(int), NUM_BINS - 1)
    return tuple(_bin(values[places == place], right[places == place]) for place in range(NUM_BINS))


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean distance of signal and agreement, by count (Naeini, Cooper, Hauskrecht 2015)."""
    distances = [
        (b.count, abs(b.mean_signal - b.agreement)) for b in bins if b.mean_signal is not None and b.agreement is not None
    ]
    return sum(count * distance for count, distance in distances) / sum(count for count, _ in distances)


def jackknife(estimate: Callable[[Sequence[int]], float], count: int) -> float:
    """Standard error of an estimate over ``count`` prompts, two or more, from leaving out each in turn (Efron 1982)."""
    without = np.array([estimate([i for i in range(count) if i != left_out]) for left_out in range(count)])
    return float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))


def _bin(values: Floats, right: Booleans) -> Bin:
    if not len(values):
        return Bin(0, None, None)
    return Bin(len(values), float(values.mean()), float(right.mean()))


def _auc_of(values: Sequence[Floats], hits: Sequence[Booleans], kept: Sequence[int]) -> float:
    return auc(np.concatenate([values[i] for i in kept]), np.concatenate([hits[i] for i in kept]))
