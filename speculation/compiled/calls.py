"""From rows, runs and parameters to arrays that machine code takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from speculation.choice import MIN_TEMPERATURE, NEAR_TIE, Run
from speculation.compiled import rows
from speculation.parameters import SamplingParameters

_NO_DRAFT = -1


class CompiledRule:
    """What ``choice.choose_by`` takes. Made only once all is compiled, or loaded."""

    def __init__(self) -> None:
        logits, asked = np.zeros((1, 2), np.float32), SamplingParameters(temperature=1.0)
        self.choose_runs(logits, [0], [(0, Run(0, asked))], np.zeros(1, np.int64), np.zeros(1, np.bool_))
        self.choose_ranked(logits, [0], [(0, 0, asked)], np.zeros((1, 1), np.int64), np.zeros((1, 1)))

    def choose_runs(
        self,
        logits: NDArray[np.float32],
        best: Sequence[int],
        runs: Sequence[tuple[int, Run]],
        token_ids: NDArray[np.int64],
        near_ties: NDArray[np.bool_],
    ) -> None:
        """``rows.choose_runs``."""
        table: list[tuple[int, int, int, int]] = []
        drafted: list[int] = []
        for first, run in runs:
            drafted += [*run.drafted, _NO_DRAFT]
            table.append((first, len(run.drafted) + 1, run.position, min(run.parameters.top_k, logits.shape[1])))
        _require_positions([run.position for _, run in runs])
        plain, seeds, numbers = _plain(logits), *_parameters([run.parameters for _, run in runs])
        places, wanted = np.array(table, np.int64), np.array(drafted, np.int64)
        rows.choose_runs(plain, _peaks(plain, best), places, seeds, numbers, wanted, NEAR_TIE, token_ids, near_ties)

    def choose_ranked(
        self,
        logits: NDArray[np.float32],
        best: Sequence[int],
        asked: Sequence[tuple[int, int, SamplingParameters]],
        token_ids: NDArray[np.int64],
        confidences: NDArray[np.float64],
    ) -> None:
        """``rows.choose_ranked``."""
        table = [(row, position, min(parameters.top_k, logits.shape[1])) for row, position, parameters in asked]
        _require_positions([position for _, position, _ in asked])
        plain, seeds, numbers = _plain(logits), *_parameters([parameters for _, _, parameters in asked])
        rows.choose_ranked(plain, _peaks(plain, best), np.array(table, np.int64), seeds, numbers, token_ids, confidences)


def _require_positions(positions: Sequence[int]) -> None:
    if min(positions) < 0:
        raise ValueError("positions start at 0")


def _peaks(logits: NDArray[np.float32], best: Sequence[int]) -> NDArray[np.float32]:
    """The highest logit of each row, by where it is."""
    peaks: NDArray[np.float32] = logits[np.arange(len(logits)), best]
    return peaks


def _parameters(parameters: Sequence[SamplingParameters]) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Seeds, and temperature, top-p and min-p of each."""
    seeds = np.array([asked.seed for asked in parameters], np.uint64)
    return seeds, np.array([(max(asked.temperature, MIN_TEMPERATURE), asked.top_p, asked.min_p) for asked in parameters])


def _plain(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """In the one form that is compiled: rows behind each other, and not marked as read-only."""
    return logits if logits.flags.c_contiguous and logits.flags.writeable else logits.copy()
