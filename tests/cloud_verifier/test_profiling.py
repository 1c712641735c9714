"""What passes cost here is measured once, within a budget, and leaves the engine as it was."""

from dataclasses import replace

import pytest

from cloud_verifier import passes, profiling
from cloud_verifier.costs import LinearCosts, PassShape, RooflineCosts
from speculation.engines.base import Chunk
from speculation.engines.random import RandomEngine
from speculation.errors import EngineError
from speculation.shaping.catalogue import Catalogue
from speculation.shaping.engine import CloudCost, ShapedEngine
from speculation.shaping.models import parse_model

PRICES = LinearCosts(pass_s=2e-3, session_s=1e-4, row_s=2e-4, cached_s=1e-6, attended_s=1e-7)


class PricedEngine(RandomEngine):
    """Every pass takes what ``PRICES`` say, by a clock of its own."""

    def __init__(self, num_slots, context_length=1024):
        super().__init__(64, context_length, 0, num_slots)
        self.now_s = 0.0
        self.num_passes = 0
        self.seen = set()

    def extend(self, chunks):
        shape = PassShape()
        self.seen.add((len(chunks), len(chunks[0].token_ids), self.length(chunks[0].cache)))
        for chunk in chunks:
            shape = shape.with_session(len(chunk.token_ids), self.length(chunk.cache))
        self.now_s += PRICES.seconds(shape)
        self.num_passes += 1
        return super().extend(chunks)


def measured(monkeypatch, engine, max_rows=256):
    monkeypatch.setattr("time.perf_counter", lambda: engine.now_s)
    return profiling.measure(engine, max_rows)


@pytest.mark.parametrize("num_slots", [1, 4, 16])
def test_what_passes_cost_is_found(monkeypatch, num_slots):
    found = measured(monkeypatch, PricedEngine(num_slots))
    for rows in (1, 2, 3, 5, 8):
        shape = PassShape()
        for _ in range(num_slots):
            shape = shape.with_session(rows, 100)
        assert found.seconds(shape) == pytest.approx(PRICES.seconds(shape), rel=0.02)


class SteppedEngine(PricedEngine):
    """Passes are cut into steps of so many rows; what else they cost is the same for all."""

    PASS_S, STEP_S, ROWS = 1e-3, 3e-3, 144

    @property
    def description(self):
        return replace(super().description, rows_a_step=self.ROWS)

    def extend(self, chunks):
        before_s = self.now_s
        logits = super().extend(chunks)
        num_steps = -(-sum(len(chunk.token_ids) for chunk in chunks) // self.ROWS)
        self.now_s = before_s + self.PASS_S + self.STEP_S * num_steps
        return logits


@pytest.mark.parametrize("num_slots", [1, 16, 64])
def test_steps_of_an_engine_are_found(monkeypatch, num_slots):
    found = measured(monkeypatch, SteppedEngine(num_slots))
    for rows in (1, 2, 3, 5):
        shape = PassShape()
        for _ in range(num_slots):
            shape = shape.with_session(rows, 32)
        steps = -(-num_slots * rows // SteppedEngine.ROWS)
        assert found.seconds(shape) == pytest.approx(SteppedEngine.PASS_S + steps * SteppedEngine.STEP_S, rel=0.05)


class ReadingEngine(PricedEngine):
    """Copies no cache."""

    fork = None


@pytest.mark.parametrize("kind", [PricedEngine, ReadingEngine])
def test_long_caches_of_several_sessions_are_measured_where_they_can_be_copied(monkeypatch, kind):
    engine = kind(64)
    measured(monkeypatch, engine)
    assert {(1, 1, 256), (1, 8, 256)} <= engine.seen
    assert ({(16, 1, 256), (16, 8, 256)} <= engine.seen) == (kind is PricedEngine)


def test_measuring_ends_with_its_budget_however_slow_passes_are(monkeypatch):
    engine = PricedEngine(16)
    monkeypatch.setattr(profiling, "BUDGET_S", 0.0)
    found = measured(monkeypatch, engine)
    assert engine.num_passes < 40
    assert found.seconds(PassShape().with_session(1, 50)) == pytest.approx(
        PRICES.seconds(PassShape().with_session(1, 50)), rel=0.5
    )


@pytest.mark.parametrize(("num_slots", "context_length", "max_rows"), [(1, 1024, 1), (3, 40, 256), (2, 20, 256), (5, 64, 3)])
def test_no_engine_is_too_small_and_every_cache_is_free_afterwards(monkeypatch, num_slots, context_length, max_rows):
    engine = PricedEngine(num_slots, context_length)
    assert measured(monkeypatch, engine, max_rows).seconds(PassShape().with_session(1, 5)) > 0
    caches = [engine.open() for _ in range(num_slots)]
    engine.extend([Chunk(caches[0], [1], 1)])


def test_an_engine_that_cannot_run_a_pass_is_no_secret(monkeypatch):
    engine = PricedEngine(2)
    monkeypatch.setattr(engine, "extend", lambda chunks: [].pop())
    with pytest.raises(EngineError, match="pass failed"):
        measured(monkeypatch, engine)


def test_an_emulated_machine_needs_no_measuring():
    engine = RandomEngine(64, 128, 0, 2)
    cost = CloudCost(Catalogue(None).cloud("mi300x"), parse_model("70B:fp16"))
    assert profiling.costs_of(ShapedEngine(engine, cost), 256) == RooflineCosts(cost.machine, cost.model)


def test_what_a_drawn_choice_costs_is_found_though_noise_that_was_drawn_before_is_kept(monkeypatch):
    engine, drawn, plain = PricedEngine(16), set(), passes.choose_runs

    def priced(logits, runs):
        asked = {(run.parameters.seed, run.position) for run in runs if run.parameters.temperature}
        engine.now_s += 1e-4 * len(asked - drawn)
        drawn.update(asked)
        return plain(logits, runs)

    monkeypatch.setattr(passes, "choose_runs", priced)
    assert measured(monkeypatch, engine).sampled_s == pytest.approx(1e-4)
