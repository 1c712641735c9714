"""From rows, runs and parameters to what machine code takes, and back.

What a pass asks of each run lies in two plain arrays, whose addresses are handed over: for a few rows NumPy's way to and from
arrays takes longer than the choice, for a pass has left the caches without it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from speculation.choice import Choices, Run
from speculation.compiled import rows
from speculation.compiled.jit import only_form_of
from speculation.parameters import SamplingParameters
from speculation.truncation import MAX_VOCABULARY_SIZE

_NO_DRAFT = -1
_SIGN = 1 << 63


class CompiledRule:
    """What ``choice.choose_by`` takes. Made only once all is compiled, or loaded."""

    def __init__(self) -> None:
        logits, asked = np.zeros((1, 2), np.float32), SamplingParameters(temperature=1.0)
        rows.choose_runs(logits, 0, 0, 0)
        self._choose_runs = only_form_of(rows.choose_runs)
        self.choose_runs(logits, [Run(0, asked)])
        self.choose_ranked(logits, [0], [asked], np.zeros((1, 1), np.int64), np.zeros((1, 1)))

    def choose_runs(self, logits: NDArray[np.float32], runs: Sequence[Run]) -> Choices | None:
        """``rows.choose_runs``."""
        asked: list[int] = []
        numbers: list[float] = []
        drafted: list[int] = []
        for run in runs:
            asked.append(len(run.drafted) + 1)
            _ask(asked, numbers, run.position, run.parameters)
            drafted += run.drafted
            drafted.append(_NO_DRAFT)
        num_asked, num_rows = len(asked), len(drafted)
        whole, real = array("q", asked + drafted + [0] * num_rows), array("d", numbers)
        if not self._choose_runs(_plain(logits), len(runs), whole.buffer_info()[0], real.buffer_info()[0]):
            return None
        made = whole.tolist()
        return Choices(made[num_asked : num_asked + num_rows], made[num_asked + num_rows :])

    def choose_ranked(
        self,
        logits: NDArray[np.float32],
        positions: Sequence[int] | NDArray[np.int64],
        parameters: Sequence[SamplingParameters],
        token_ids: NDArray[np.int64],
        confidences: NDArray[np.float64],
    ) -> bool:
        """``rows.choose_ranked``."""
        asked: list[int] = []
        numbers: list[float] = []
        for position, one in zip(positions, parameters, strict=True):
            _ask(asked, numbers, position, one)
        whole, real = array("q", asked), array("d", numbers)
        made: bool = rows.choose_ranked(_plain(logits), whole.buffer_info()[0], real.buffer_info()[0], token_ids, confidences)
        return made


def _ask(asked: list[int], numbers: list[float], position: int, parameters: SamplingParameters) -> None:
    """Position, top-k and seed as signed numbers; temperature, top-p and min-p. Raises ``ValueError`` where noise is asked for
    at no position."""
    temperature, top_k, seed = parameters.temperature, parameters.top_k, parameters.seed
    if position < 0 and temperature:
        raise ValueError("positions start at 0")
    top_k = top_k if top_k < MAX_VOCABULARY_SIZE else MAX_VOCABULARY_SIZE
    asked += (position, top_k, seed if seed < _SIGN else seed - 2 * _SIGN)
    numbers += (temperature, parameters.top_p, parameters.min_p)


def _plain(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """In the one form that is compiled: rows behind each other, and not marked as read-only."""
    return logits if logits.flags.carray else logits.copy()
