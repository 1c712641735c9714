"""Measures what passes cost on this machine, once, before anybody is served: by sessions, rows of each, and context."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count, repeat

from cloud_verifier.costs import LinearCosts, PassCosts, PassShape, RooflineCosts, fitted
from cloud_verifier.passes import Entry, Pass
from speculation.engines.base import CacheId, Engine, Forkable
from speculation.parameters import SamplingParameters
from speculation.shaping.engine import ShapedEngine

ROWS = (1, 2, 4, 8)
"""Rows of each session that are measured."""

STEP = 4
"""Each number of sessions that is measured is so many times the one before."""

SEVERAL = STEP**2
"""So many sessions are measured where their number is not what is looked for."""

REPEATS = 3
"""The fastest of so many runs counts, after one that warms up: what disturbs a run only ever makes it longer."""

CONTEXTS = (32, 256)
"""Tokens in the caches behind which passes are measured, as far as they fit."""

GREEDY = SamplingParameters()
SAMPLED = SamplingParameters(temperature=0.8)
"""A way that costs much, with noise for every token; what it costs more than to take the likeliest one is taken for all
others. By NumPy none costs more, by machine code top-p does, by some microseconds."""

STRIDE, VARIETY = 7, 61
"""Tokens that are fed differ from each other, and mean nothing: so the model is as unsure as it gets, and its choices cost
most. No vocabulary is smaller than this."""

MOST_ROWS = 128
"""A pass with more rows is not measured, but for one row of each session: what is found on the way there is a straight line."""
MOST_STEPS = 3
"""Where a pass is cut into steps of so many rows, those of as many steps are measured."""

BUDGET_S = 2.0
"""Measuring goes on no longer than this, but for the run that is under way; one row of each session is always measured."""


def costs_of(engine: Engine, max_rows: int) -> PassCosts:
    """Of an emulated machine by its figures, else measured. Raises what the engine raises."""
    if isinstance(engine, ShapedEngine) and engine.cost.is_shaped:
        return RooflineCosts(engine.cost.machine, engine.cost.model)
    return measure(engine, max_rows)


def measure(engine: Engine, max_rows: int) -> LinearCosts:
    """Run passes of many shapes; all caches of the engine have to be free, and are free again afterwards."""
    end_s = time.perf_counter() + BUDGET_S
    near, far = (min(context, engine.description.context_length // 2 - ROWS[-1]) for context in CONTEXTS)
    sessions = [number for number in _multiplying(engine.description.num_slots) if number <= max_rows]
    measured, sampled_s = [], 0.0
    if far > near > 0:
        measured += _behind(engine, 1, far, max_rows)
        # Long caches that are not copied have to be read, each as long as all that is measured here.
        if isinstance(engine, Forkable) and sessions[-1] > 1 and time.perf_counter() < end_s:
            measured += _behind(engine, min(sessions[-1], SEVERAL), far, max_rows)
    rows_a_step = engine.description.rows_a_step
    most_rows = min(max_rows, max(MOST_ROWS, MOST_STEPS * rows_a_step))
    with _caches(engine, sessions[-1], max(0, near)) as caches:
        for rows in ROWS:
            for number in sessions:
                if rows == 1 or (number * rows <= most_rows and time.perf_counter() < end_s):
                    measured.append(_measured(engine, caches[:number], max(0, near), rows))
        sampled_s = _sampled_s(engine, caches[:SEVERAL], max(0, near))
    return replace(fitted(measured, rows_a_step), sampled_s=sampled_s)


def _sampled_s(engine: Engine, caches: list[CacheId], context: int) -> float:
    """What it takes longer to draw the choice of a row than to take the likeliest token; no seed is used twice, for noise is
    kept."""
    drawn = (replace(SAMPLED, seed=seed) for seed in count())
    drawn_s, likeliest_s = (_fastest_s(engine, caches, context, 1, ways) for ways in (drawn, repeat(GREEDY)))
    return max(0.0, drawn_s - likeliest_s) / len(caches)


def _behind(engine: Engine, number: int, context: int, max_rows: int) -> list[tuple[PassShape, float]]:
    """Passes of so many sessions behind long caches, with the fewest rows and with the most."""
    with _caches(engine, number, context) as caches:
        most = min(ROWS[-1], max(1, max_rows // number))
        return [_measured(engine, caches, context, rows) for rows in sorted({ROWS[0], most})]


def _measured(engine: Engine, caches: list[CacheId], context: int, rows: int) -> tuple[PassShape, float]:
    shape = PassShape()
    for _ in caches:
        shape = shape.with_session(rows, context)
    return shape, _fastest_s(engine, caches, context, rows)


def _fastest_s(
    engine: Engine, caches: list[CacheId], context: int, rows: int, ways: Iterator[SamplingParameters] | None = None
) -> float:
    """Behind ``context`` tokens in each cache, of ``REPEATS`` passes with their choices."""
    taken_s: list[float] = []
    ways = ways or repeat(GREEDY)
    for _ in range(1 + REPEATS):
        entries = [_entry(cache, context, rows, rows, way) for cache, way in zip(caches, ways, strict=False)]
        began_s = time.perf_counter()
        _run(engine, entries)
        taken_s.append(time.perf_counter() - began_s)
    return min(taken_s[1:])


def _run(engine: Engine, entries: list[Entry]) -> None:
    Pass((), entries).run(engine)
    for entry in entries:
        if entry.error is not None:
            raise entry.error


def _entry(cache: CacheId, cached: int, rows: int, num_logits: int, parameters: SamplingParameters = GREEDY) -> Entry:
    token_ids = [STRIDE * place % VARIETY for place in range(1, rows + 1)]
    return Entry(cache, cached, token_ids, num_logits, cached, token_ids[1 : num_logits or 1], parameters)


@contextmanager
def _caches(engine: Engine, number: int, context: int) -> Iterator[list[CacheId]]:
    """Caches that hold so many tokens each."""
    caches = [engine.open()]
    try:
        if context:
            _run(engine, [_entry(caches[0], 0, context, 0)])
        while len(caches) < number:
            caches.append(_like(engine, caches[0], context))
        # The first pass over all of them pays for memory that was never touched.
        _run(engine, [_entry(cache, context, 1, 0) for cache in caches])
        yield caches
    finally:
        for cache in caches:
            engine.close(cache)


def _like(engine: Engine, cache: CacheId, context: int) -> CacheId:
    if isinstance(engine, Forkable):
        return engine.fork(cache)
    other = engine.open()
    if context:
        _run(engine, [_entry(other, 0, context, 0)])
    return other


def _multiplying(most: int) -> Iterator[int]:
    """1, ``STEP``, its square and so on below ``most``, then ``most`` itself."""
    number = 1
    while number < most:
        yield number
        number *= STEP
    yield most
