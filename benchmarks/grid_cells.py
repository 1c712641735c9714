"""One cell of the grid: every policy and baseline by the production code, beside what the first-order model says of each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks import first_order, grid_production
from benchmarks.first_order import Figures, Times, mean_of
from benchmarks.first_order_ahead import Truth, ahead
from benchmarks.grid_production import PROMPT, Answer, Meeting, Setup, answered
from outrider.planning import synthetic
from outrider.planning.synthetic import Acceptance, Paths

DRAFTS_MS, PASSES_MS, ROUND_TRIPS_MS = (9.0, 18.0), (30.0, 60.0), (20.0, 60.0, 150.0, 300.0)
ALPHAS = (0.6, 0.7, 0.8, 0.9, 0.95)
WIDTHS = {1: "one branch", 2: "two branches", 4: "four branches"}
ADAPTIVE = "adaptive"
LEAST_OF_MODEL, LEAST_OF_CLOUD = 0.97, 0.99
MARGIN = first_order.LONGEST_SYNC + 1
"""Positions behind the last token that a model may look at."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Times, and the knob of the acceptance."""

    times: Times
    alpha: float


@dataclass(frozen=True, slots=True)
class Runs:
    """How much is run a cell."""

    num_tokens: int = 1000
    num_seeds: int = 1


@dataclass(frozen=True, slots=True)
class Beside:
    """What the production code reached, and what the model says."""

    ours: Figures
    model: Figures

    @property
    def share(self) -> float:
        return self.ours.tokens_per_s / self.model.tokens_per_s


@dataclass(frozen=True, slots=True)
class Row:
    """One cell, as means over its seeds.

    ``sync`` is stop-and-wait with ``sync_length`` drafts a round trip, ``inside`` speculation inside the cloud with
    ``inside_length`` drafts a pass: the best lengths by the model, on the same draws. ``ahead`` is drafting ahead, by width.
    """

    cell: Cell
    cloud: Figures
    sync: Beside
    sync_length: int
    inside: Beside
    inside_length: int
    ahead: Mapping[int, Beside]
    adaptive: Figures
    num_sessions: int
    emulated_s: float

    @property
    def of_model(self) -> dict[str, float]:
        """Shares of the model's rate at the same width."""
        return {name: self.ahead[width].share for width, name in WIDTHS.items()}

    @property
    def of_cloud(self) -> dict[str, float]:
        """Every policy that never waits, over the cloud alone."""
        rates = {name: self.ahead[width].ours.tokens_per_s for width, name in WIDTHS.items()}
        rates[ADAPTIVE] = self.adaptive.tokens_per_s
        return {name: rate / self.cloud.tokens_per_s for name, rate in rates.items()}

    @property
    def misses(self) -> list[str]:
        """The bounds that this cell does not reach, by name."""
        below_model = [f"{name}: model" for name, share in self.of_model.items() if share < LEAST_OF_MODEL]
        return below_model + [f"{name}: cloud" for name, share in self.of_cloud.items() if share < LEAST_OF_CLOUD]

    def to_json(self) -> dict[str, object]:
        shares = {"of_model": self.of_model, "of_cloud": self.of_cloud, "misses": self.misses}
        return asdict(self) | shares | {"device": asdict(first_order.device(self.cell.times))}


def all_cells() -> list[Cell]:
    timings = itertools.product(DRAFTS_MS, PASSES_MS, ROUND_TRIPS_MS)
    return [Cell(Times(*timing), alpha) for timing in timings for alpha in ALPHAS]


def few_cells() -> list[Cell]:
    """A fast draft and a slow pass at one acceptance, over a short and a long round trip."""
    return [Cell(Times(DRAFTS_MS[0], PASSES_MS[1], round_trip_ms), 0.8) for round_trip_ms in (60.0, 300.0)]


class _Measuring:
    """One cell's runs, and what they add up to."""

    def __init__(self, cell: Cell, runs: Runs) -> None:
        self._acceptance = Acceptance(cell.alpha)
        self._cell, self._runs = cell, runs
        self._answers: list[Answer] = []
        prompt = synthetic.encode(PROMPT)
        self._processes = [Paths(self._acceptance, seed, prompt) for seed in range(runs.num_seeds)]
        self._hits = [Truth(process).hits(runs.num_tokens + MARGIN) for process in self._processes]

    def row(self) -> Row:
        times = self._cell.times
        sync, sync_length = self._best_sync(times)
        inside, inside_length = self._best_sync(first_order.beside_the_full_model(times))
        return Row(
            cell=self._cell,
            cloud=self._ours(grid_production.cloud_alone(), num_seeds=1),
            sync=Beside(self._ours(grid_production.stop_and_wait(sync_length)), sync),
            sync_length=sync_length,
            inside=Beside(self._ours(grid_production.inside_the_cloud(inside_length)), inside),
            inside_length=inside_length,
            ahead={width: self._ahead(width) for width in WIDTHS},
            adaptive=self._ours(grid_production.adaptive()),
            num_sessions=len(self._answers),
            emulated_s=sum(answer.emulated_s for answer in self._answers),
        )

    def _best_sync(self, times: Times) -> tuple[Figures, int]:
        return first_order.best_sync(self._hits, times, self._runs.num_tokens)

    def _ahead(self, width: int) -> Beside:
        times, count = self._cell.times, self._runs.num_tokens
        model = mean_of([ahead(process, times, count, width) for process in self._processes])
        return Beside(self._ours(grid_production.branches(width)), model)

    def _ours(self, setup: Setup, num_seeds: int | None = None) -> Figures:
        """Over all seeds; one is enough where no draft is made."""
        seeds = range(self._runs.num_seeds if num_seeds is None else num_seeds)
        meetings = [Meeting(self._cell.times, self._acceptance, seed, self._runs.num_tokens) for seed in seeds]
        answers = [answered(setup, met) for met in meetings]
        self._answers += answers
        return mean_of([answer.figures for answer in answers])


def measure(cell: Cell, runs: Runs) -> Row:
    """All of one cell; depends on nothing but its arguments."""
    return _Measuring(cell, runs).row()


def worst(rows: Sequence[Row], shares: Sequence[float]) -> tuple[float, Row]:
    """The lowest of the rows' shares, and whose it is."""
    return min(zip(shares, rows, strict=True), key=lambda pair: pair[0])
