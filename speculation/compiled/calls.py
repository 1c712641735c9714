"""From rows, runs and parameters to arrays that machine code takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from speculation.choice import Run
from speculation.compiled import rows
from speculation.parameters import SamplingParameters

_NO_DRAFT = -1


class CompiledRule:
    """What ``choice.choose_by`` takes. Made only once all is compiled, or loaded."""

    def __init__(self) -> None:
        logits, asked = np.zeros((1, 2), np.float32), SamplingParameters(temperature=1.0)
        self.choose_runs(logits, [Run(0, asked)], np.zeros(1, np.int64), np.zeros(1, np.bool_))
        self.choose_ranked(logits, [0], [asked], np.zeros((1, 1), np.int64), np.zeros((1, 1)))

    def choose_runs(
        self, logits: NDArray[np.float32], runs: Sequence[Run], token_ids: NDArray[np.int64], near_ties: NDArray[np.bool_]
    ) -> bool:
        """``rows.choose_runs``."""
        table: list[tuple[int, int, int]] = []
        drafted: list[int] = []
        for run in runs:
            drafted += run.drafted
            drafted.append(_NO_DRAFT)
            table.append((len(run.drafted) + 1, run.position, min(run.parameters.top_k, logits.shape[1])))
        seeds, numbers = _parameters([(run.position, run.parameters) for run in runs])
        places, wanted = np.array(table, np.int64), np.array(drafted, np.int64)
        made: bool = rows.choose_runs(_plain(logits), places, seeds, numbers, wanted, token_ids, near_ties)
        return made

    def choose_ranked(
        self,
        logits: NDArray[np.float32],
        positions: Sequence[int] | NDArray[np.int64],
        parameters: Sequence[SamplingParameters],
        token_ids: NDArray[np.int64],
        confidences: NDArray[np.float64],
    ) -> bool:
        """``rows.choose_ranked``."""
        most = logits.shape[1]
        table = [(position, min(asked.top_k, most)) for position, asked in zip(positions, parameters, strict=True)]
        seeds, numbers = _parameters(zip(positions, parameters, strict=True))
        made: bool = rows.choose_ranked(_plain(logits), np.array(table, np.int64), seeds, numbers, token_ids, confidences)
        return made


def _parameters(asked: Iterable[tuple[int, SamplingParameters]]) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Seeds, and temperature, top-p and min-p of each. Raises ``ValueError`` where noise is asked for at no position."""
    seeds, numbers = [], []
    for position, parameters in asked:
        if position < 0 and parameters.temperature:
            raise ValueError("positions start at 0")
        seeds.append(parameters.seed)
        numbers.append((parameters.temperature, parameters.top_p, parameters.min_p))
    return np.array(seeds, np.uint64), np.array(numbers)


def _plain(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """In the one form that is compiled: rows behind each other, and not marked as read-only."""
    return logits if logits.flags.c_contiguous and logits.flags.writeable else logits.copy()
