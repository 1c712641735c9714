"""The choice: which token stands at a position, given the model's logits there, the parameters and the seed. Pure.

Law: the choice is a function of (logits, parameters, seed, position) and of nothing else; a row chosen in a batch equals the
row chosen alone, bit for bit. Both ends call this one function, so a drafted token is accepted by comparing two numbers.
``docs/choice-rule.md`` is the rule in words. In short, for a temperature over 0:

- score = float64(logit) / temperature; order tokens by (score descending, id ascending);
- keep the first ``top_k``; of these the shortest beginning that holds ``top_p`` of their weight; of these the tokens with at
  least ``min_p`` times the weight of the first;
- take the highest score + noise (``speculation.noise``); ties go to the lowest id.

The coupling of two models by common noise: Daliri, Musco, Suresh, "Coupling without communication and drafter-invariant
speculative decoding", arXiv 2408.07978: the choices agree with probability (1 - TV) / (1 + TV) or more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from speculation import greedy
from speculation.contest import Contest, Left, contests
from speculation.errors import EngineError
from speculation.parameters import SamplingParameters
from speculation.truncation import MAX_VOCABULARY_SIZE, at_least, nucleus, top_by_value
from speculation.values import value

# A lead below this many units of logits may be turned round by an engine that is exact only within tolerance: such engines
# were seen to differ by 2e-5 between batch shapes.
NEAR_TIE = 1e-4
# Lower temperatures count as this one: float32 logits divided by it still lie well within float64.
MIN_TEMPERATURE = 1e-30

_FLOAT32 = np.dtype(np.float32)  # to compare with the type itself, NumPy looks through all types for it

NOT_CHOSEN = -1
"""In place of the choice of a row that no choice leads to."""

# A choice needs its runner-up too: whether its lead is a near tie.
_FOR_THE_CHOICE = 2


@value
class Run:
    """Rows of one text: behind the token before ``position``, which is the one that the first choice takes, and behind each of
    the tokens ``drafted`` from there on."""

    position: int
    parameters: SamplingParameters
    drafted: Sequence[int] = ()


@value
class Choices:
    """The choices of a pass, row by row: both have R elements.

    ``near_ties`` is true, or 1, where the winner leads the runner-up by less than ``NEAR_TIE`` units of logits (for sampled
    rows, the lead in score + noise times the temperature).
    """

    token_ids: Sequence[int]
    near_ties: Sequence[int]


@dataclass(frozen=True, slots=True)
class Ranked:
    """The choice of every row and the tokens behind it, with how sure each is.

    ``token_ids`` is int64 [R, count]: the choice, then those behind it by (score + noise descending, id ascending), -1 where no
    more are left. ``confidences`` is float64 [R, count]: the softmax of those sums over the tokens left by top-k, top-p and
    min-p (at temperature 0 of the logits), 0 where there is no token. They are for decisions: good to about 0.001.
    """

    token_ids: NDArray[np.int64]
    confidences: NDArray[np.float64]


class Rule(Protocol):
    """Another way to the same choices."""

    def choose_runs(self, logits: NDArray[np.float32], runs: Sequence[Run]) -> Choices | None:
        """What ``choose_runs`` gives; None where a logit is not finite."""

    def choose_ranked(
        self,
        logits: NDArray[np.float32],
        positions: Sequence[int] | NDArray[np.int64],
        parameters: Sequence[SamplingParameters],
        token_ids: NDArray[np.int64],
        confidences: NDArray[np.float64],
    ) -> bool:
        """Fills in what ``choose_ranked`` gives; False, and what is filled in means nothing, where a logit is not finite."""


_rule: Rule | None = None


def choose_by(rule: Rule | None) -> None:
    """Let this process choose another way from now on; None is the way of this module."""
    global _rule
    _rule = rule


def choose(
    logits: NDArray[np.float32], positions: Sequence[int] | NDArray[np.int64], parameters: Sequence[SamplingParameters]
) -> Choices:
    """The choice of every row: ``logits`` is float32 [R, V], ``positions`` and ``parameters`` have R elements.

    A row's position is the one that the chosen token will take. The logits are not changed.
    Raises ``EngineError`` when logits are not finite or not float32 [R, V], ``ValueError`` when the lengths differ.
    """
    _require_shape(logits, len(positions), len(parameters))
    return choose_runs(logits, [Run(int(position), asked) for position, asked in zip(positions, parameters, strict=True)])


def choose_runs(logits: NDArray[np.float32], runs: Sequence[Run]) -> Choices:
    """The choices that verify drafts. ``logits`` is float32 [R, V], the rows of one run after those of the other.

    In each run the choices up to the first that its draft does not equal, as ``choose`` makes them; what stands behind that
    never counts, is not looked at, and is told as ``NOT_CHOSEN``. Errors as for ``choose``.
    """
    num_rows = sum([len(run.drafted) + 1 for run in runs])
    _require_shape(logits, num_rows, num_rows)
    if _rule is None or not runs:
        return _choose_runs(logits, runs)
    made = _rule.choose_runs(logits, runs)
    if made is None:
        raise _not_finite(logits)
    return made


def _choose_runs(logits: NDArray[np.float32], runs: Sequence[Run]) -> Choices:
    best = _peaks(logits)
    token_ids, near_ties = [NOT_CHOSEN] * len(logits), [False] * len(logits)
    row = 0
    sampled: list[tuple[int, Run]] = []
    for run in runs:
        if run.parameters.temperature == 0:
            for place in range(row, row + 1 + run_length(run.drafted, best[row : row + len(run.drafted)])):
                token_ids[place], near_ties[place] = best[place], greedy.is_near(logits[place], best[place], NEAR_TIE)
        else:
            sampled.append((row, run))
        row += len(run.drafted) + 1
    place = 0
    while sampled:
        rows = ((first + place, run.position + place, run.parameters) for first, run in sampled)
        left = [_left(row, position, logits[row], logits.item(row, best[row]), asked) for row, position, asked in rows]
        for row, token_id, is_near in _drawn(left):
            token_ids[row], near_ties[row] = token_id, is_near
        sampled = [(first, run) for first, run in sampled if token_ids[first + place] in run.drafted[place : place + 1]]
        place += 1
    return Choices(token_ids, near_ties)


def _drawn(rows: Sequence[Left]) -> Iterator[tuple[int, int, bool]]:
    """The choices of sampled rows: row, token, and whether its lead is a near tie."""
    for left, contest in contests(rows, _FOR_THE_CHOICE, wants_others=False):
        sums = contest.sums
        winner = int(sums.argmax())
        is_near = int(np.count_nonzero((sums[winner] - sums) * left.temperature < NEAR_TIE)) > 1
        yield left.row, int(contest.token_ids[winner]), is_near


def run_length(token_ids: Sequence[int], choices: Sequence[int]) -> int:
    """How many drafts equal the choices, of which there are as many or more, before the first that differs."""
    count = 0
    for token_id in token_ids:
        if token_id != choices[count]:
            break
        count += 1
    return count


def choose_ranked(
    logits: NDArray[np.float32],
    positions: Sequence[int] | NDArray[np.int64],
    parameters: Sequence[SamplingParameters],
    count: int,
) -> Ranked:
    """The first ``count`` tokens of every row, the choice (the same as ``choose``) before all, and the confidence in each.

    For who drafts. The other arguments and errors as for ``choose``; ``ValueError`` for a count below 1.
    """
    if count < 1:
        raise ValueError(f"the choice is the first of those asked for: count must be at least 1, not {count}")
    _require_shape(logits, len(positions), len(parameters))
    made = Ranked(np.full((len(logits), count), -1, np.int64), np.zeros((len(logits), count)))
    if _rule is None or not len(logits):
        _choose_ranked(logits, positions, parameters, made)
    elif not _rule.choose_ranked(logits, positions, parameters, made.token_ids, made.confidences):
        raise _not_finite(logits)
    return made


def _choose_ranked(
    logits: NDArray[np.float32],
    positions: Sequence[int] | NDArray[np.int64],
    parameters: Sequence[SamplingParameters],
    made: Ranked,
) -> None:
    """Fill in what is made."""
    likeliest = _peaks(logits)
    sampled: list[Left] = []
    for row, asked in enumerate(parameters):
        peak = greedy.Peak(likeliest[row], logits.item(row, likeliest[row]))
        if asked.temperature == 0:
            greedy.rank(logits[row], peak, made.token_ids[row], made.confidences[row])
        else:
            sampled.append(_left(row, int(positions[row]), logits[row], peak.logit, asked))
    for left, contest in contests(sampled, made.token_ids.shape[1]):
        _rank(left, contest, made.token_ids[left.row], made.confidences[left.row])


def _rank(left: Left, contest: Contest, token_ids: NDArray[np.int64], confidences: NDArray[np.float64]) -> None:
    """Write a row's first tokens with their confidences; the sums are used up."""
    sums = contest.sums
    weights = np.exp(sums - left.highest)
    total = float(weights.sum()) + contest.others
    for place in range(min(len(token_ids), len(sums))):
        best = int(sums.argmax())
        sums[best] = -np.inf
        token_ids[place], confidences[place] = contest.token_ids[best], weights[best] / total


def _peaks(logits: NDArray[np.float32]) -> list[int]:
    """The token of each row's highest logit. Raises ``EngineError`` where one is not finite."""
    # A NaN anywhere shows as the highest and as the lowest, so two looks find all that is wrong.
    highest, lowest = np.maximum.reduce(logits, None, initial=0.0), np.minimum.reduce(logits, None, initial=0.0)
    if not (math.isfinite(highest) and math.isfinite(lowest)):
        raise _not_finite(logits)
    likeliest: list[int] = logits.argmax(axis=1).tolist()
    return likeliest


def _not_finite(logits: NDArray[np.float32]) -> EngineError:
    """Which row it is that holds what is not finite."""
    number = int((~np.isfinite(logits).all(axis=1)).argmax())
    row = logits[number]
    return EngineError(f"row {number} of the logits is not finite (highest {row.max()}, lowest {row.min()})")


def _require_shape(logits: NDArray[np.float32], num_positions: int, num_parameters: int) -> None:
    dtype, shape = logits.dtype, logits.shape
    is_right = (dtype is _FLOAT32 or dtype == _FLOAT32) and len(shape) == 2
    if not (is_right and 0 < shape[1] <= MAX_VOCABULARY_SIZE):
        wanted = f"float32 [rows, vocabulary of 1 to {MAX_VOCABULARY_SIZE}]"
        raise EngineError(f"logits must be {wanted}, not {dtype} {list(shape)}")
    if not shape[0] == num_positions == num_parameters:
        raise ValueError(
            f"{shape[0]} rows of logits, {num_positions} positions, {num_parameters} parameters: not one for each row"
        )


def _left(row: int, position: int, logits: NDArray[np.float32], peak: float, asked: SamplingParameters) -> Left:
    """Top-k, then top-p, then min-p."""
    temperature = max(asked.temperature, MIN_TEMPERATURE)
    highest = peak / temperature
    token_ids: NDArray[np.int64] | None = None
    num_tokens = len(logits)
    if 0 < asked.top_k < len(logits):
        token_ids = top_by_value(logits, asked.top_k)
        logits = logits[token_ids]
    scores = logits / np.float64(temperature)
    if asked.top_p < 1:
        kept = nucleus(scores, highest, asked.top_p)
        token_ids, scores = kept if token_ids is None else token_ids[kept], scores[kept]
    if asked.min_p > 0:
        kept = at_least(scores, highest, asked.min_p)
        token_ids, scores = kept if token_ids is None else token_ids[kept], scores[kept]
    return Left(row, asked.seed, position, num_tokens, token_ids, scores, highest, temperature)
