"""What a pass costs, by what is in it. Pure; times in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from speculation.shaping.costs import Machine, Work, step_time_s
from speculation.shaping.models import ModelDescription


@dataclass(frozen=True, slots=True)
class PassShape:
    """What the time of a pass follows from.

    ``num_evened`` are the rows of the attention node, where each session's are filled up to an even number;
    ``num_attended`` sums, over all of those, the cached tokens that each attends to; ``num_sampled`` are the rows whose choice
    is drawn, and not the likeliest token: as many as are to be expected, for behind a draft that is not chosen none is.
    """

    num_sessions: int = 0
    num_rows: int = 0
    num_evened: int = 0
    num_cached: int = 0
    num_attended: int = 0
    num_sampled: float = 0.0

    def with_session(self, num_rows: int, num_cached: int, num_sampled: float = 0.0) -> PassShape:
        """One session more, with rows of its own behind what it has cached."""
        return PassShape(
            self.num_sessions + 1,
            self.num_rows + num_rows,
            self.num_evened + evened(num_rows),
            self.num_cached + num_cached,
            self.num_attended + evened(num_rows) * num_cached,
            self.num_sampled + num_sampled,
        )

    def with_row(self, num_before: int, num_cached: int, num_sampled: float = 0.0) -> PassShape:
        """One row more of a session that has ``num_before``."""
        num_evened = evened(num_before + 1) - evened(num_before)
        return PassShape(
            self.num_sessions,
            self.num_rows + 1,
            self.num_evened + num_evened,
            self.num_cached,
            self.num_attended + num_evened * num_cached,
            self.num_sampled + num_sampled,
        )


class PassCosts(Protocol):
    """The price of a pass before it is run."""

    def seconds(self, shape: PassShape) -> float:
        """Seconds of a pass of this shape; over 0 where there are rows."""


@dataclass(frozen=True, slots=True)
class LinearCosts:
    """So long for a pass, for each of its sessions, rows and evened rows, for each cached token that is read and again for each
    evened row that attends to it, for each step of ``rows_a_step`` rows where there are steps, and for drawing the choice of a
    row."""

    pass_s: float
    session_s: float = 0.0
    row_s: float = 0.0
    evened_s: float = 0.0
    cached_s: float = 0.0
    attended_s: float = 0.0
    step_s: float = 0.0
    sampled_s: float = 0.0
    rows_a_step: int = field(default=0, kw_only=True)

    def seconds(self, shape: PassShape) -> float:
        by_size = self.session_s * shape.num_sessions + self.row_s * shape.num_rows + self.evened_s * shape.num_evened
        by_context = self.cached_s * shape.num_cached + self.attended_s * shape.num_attended
        by_steps = self.step_s * num_steps(shape.num_rows, self.rows_a_step)
        return self.pass_s + by_size + by_context + by_steps + self.sampled_s * shape.num_sampled


@dataclass(frozen=True, slots=True)
class RooflineCosts:
    """An emulated machine, whose time follows from sums alone (``speculation/shaping/costs.py``)."""

    machine: Machine
    model: ModelDescription

    def seconds(self, shape: PassShape) -> float:
        return step_time_s(self.machine, self.model, (Work(shape.num_cached, shape.num_rows),))


def least_row_s(costs: PassCosts) -> float:
    """No row costs less, whatever is in the pass."""
    return costs.row_s if isinstance(costs, LinearCosts) else 0.0


def growing(costs: PassCosts, shape: PassShape) -> Callable[[int, int, float], float]:
    """Seconds of a pass that grows from that shape: each call is ``PassShape.with_row``, and gives what the pass costs then.

    What has a price by the row is summed up: a shape for every draft there is would take a pass over many sessions longer to
    plan than to tell.
    """
    seconds, rows = costs.seconds(shape), shape.num_rows

    def of_line(num_before: int, num_cached: int, num_sampled: float = 0.0) -> float:
        nonlocal seconds, rows
        seconds += row_s + sampled_s * num_sampled
        if rows_a_step:
            seconds += step_s * (rows % rows_a_step == 0)
            rows += 1
        if num_before % 2 == 0:  # an odd count has its even row already
            seconds += evened_s + attended_s * num_cached
        return seconds

    def of_any(num_before: int, num_cached: int, num_sampled: float = 0.0) -> float:
        nonlocal shape
        shape = shape.with_row(num_before, num_cached, num_sampled)
        return costs.seconds(shape)

    if not isinstance(costs, LinearCosts):
        return of_any
    row_s, sampled_s, evened_s, attended_s = costs.row_s, costs.sampled_s, 2 * costs.evened_s, 2 * costs.attended_s
    step_s, rows_a_step = costs.step_s, costs.rows_a_step
    return of_line


def evened(num_rows: int) -> int:
    """The next even number, where it is none."""
    return num_rows + num_rows % 2


def num_steps(num_rows: int, rows_a_step: int) -> int:
    """How many steps hold so many rows; none where there are no steps."""
    return -(-num_rows // rows_a_step) if rows_a_step else 0


def fitted(measured: Sequence[tuple[PassShape, float]], rows_a_step: int = 0) -> LinearCosts:
    """The costs that come closest to measured passes, by the squares of what each is off by, relative to what it took.

    No price is below 0: where the closest would have one, that price is left out, the lowest first, and the rest fitted anew
    (backward elimination). Cached tokens must have been measured at two lengths at least to have prices of their own.
    """
    columns = np.array([_quantities(shape, rows_a_step) for shape, _ in measured], np.float64)
    seconds = np.array([taken_s for _, taken_s in measured])
    # Where every pass was one step, what it takes is the step's: a second one takes it again.
    is_one_step = rows_a_step > 0 and bool((columns[:, -1] == 1).all())
    kept = list(range(int(is_one_step), columns.shape[1]))
    prices = np.zeros(columns.shape[1])
    while kept:
        solved, *_ = np.linalg.lstsq(columns[:, kept] / seconds[:, None], np.ones(len(seconds)), rcond=None)
        if (solved >= 0).all():
            prices[kept] = solved
            break
        del kept[int(np.argmin(solved * columns[:, kept].mean(axis=0)))]
    return LinearCosts(*prices.tolist(), rows_a_step=rows_a_step)


def _quantities(shape: PassShape, rows_a_step: int) -> tuple[int, ...]:
    """In the order of the prices."""
    steps = num_steps(shape.num_rows, rows_a_step)
    return 1, shape.num_sessions, shape.num_rows, shape.num_evened, shape.num_cached, shape.num_attended, steps
