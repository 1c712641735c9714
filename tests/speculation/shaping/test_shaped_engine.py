import asyncio
import dataclasses

import numpy as np
import pytest

from speculation.engines.base import CacheId, Charging, Chunk, EngineDescription, Forkable
from speculation.engines.runner import EngineRunner
from speculation.errors import CacheClosedError, CapacityError
from speculation.shaping import profiles, virtual_time
from speculation.shaping.costs import Work
from speculation.shaping.engine import CloudCost, PhoneCost, ShapedEngine, WhenFull, shape
from speculation.shaping.models import parse_model

COST = PhoneCost(profiles.phone("dimensity-9300"), parse_model("0.9B:int4"))
NOTHING = PhoneCost(profiles.phone("none"), parse_model("0.9B:int4"))


class ListEngine:
    """Keeps token lists; the logits of a row are its token id and its position."""

    description = EngineDescription("list", 2, 512, 4, 10, 40, 4)

    def __init__(self) -> None:
        self.caches: dict[CacheId, list[int]] = {}
        self.extended = self.opened = 0

    def open(self) -> CacheId:
        self.opened += 1
        cache = CacheId(self.opened)
        self.caches[cache] = []
        return cache

    def length(self, cache: CacheId) -> int:
        if cache not in self.caches:
            raise CacheClosedError("closed")
        return len(self.caches[cache])

    def extend(self, chunks):
        self.extended += 1
        rows = []
        for chunk in chunks:
            tokens = self.caches[chunk.cache]
            tokens.extend(chunk.token_ids)
            positions = range(len(tokens) - chunk.num_logits, len(tokens))
            rows += [(tokens[position], position) for position in positions]
        return np.array(rows, np.float32).reshape(-1, 2)

    def truncate(self, cache: CacheId, length: int) -> None:
        del self.caches[cache][length:]

    def close(self, cache: CacheId) -> None:
        if self.caches.pop(cache, None) is None:
            raise CacheClosedError("closed")


class ForkingEngine(ListEngine):
    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        copy = self.open()
        self.caches[copy] = self.caches[cache][:length]
        return copy


def test_the_tokens_and_logits_are_the_inner_engines_own():
    plain, shaped = ListEngine(), ShapedEngine(ListEngine(), COST)
    for engine in (plain, shaped):
        cache = engine.open()
        assert engine.extend([Chunk(cache, [5, 6, 7], 2)]).tolist() == [[6, 1], [7, 2]]
        engine.truncate(cache, 1)
        assert engine.length(cache) == 1
        engine.close(cache)
        with pytest.raises(CacheClosedError):
            engine.close(cache)
    assert shaped.description == plain.description


def test_each_extend_is_charged_by_what_it_read_and_the_charge_is_taken_once():
    engine = ShapedEngine(ListEngine(), COST)
    one, two = engine.open(), engine.open()
    engine.extend([Chunk(one, [1] * 100, 1), Chunk(two, [1] * 7, 1)])
    assert engine.take_charge_s() == COST.step_s([Work(0, 100), Work(0, 7)])
    engine.extend([Chunk(one, [1], 1)])
    engine.truncate(two, 3)
    engine.extend([Chunk(two, [1, 2], 1)])
    assert engine.take_charge_s() == COST.step_s([Work(100, 1)]) + COST.step_s([Work(3, 2)])
    assert engine.take_charge_s() == 0


def test_a_failed_extend_is_not_charged():
    engine = ShapedEngine(ListEngine(), COST)
    with pytest.raises(CacheClosedError):
        engine.extend([Chunk(CacheId(9), [1], 1)])
    assert engine.take_charge_s() == 0


def test_it_is_forkable_exactly_when_the_inner_engine_is():
    plain, forking = ShapedEngine(ListEngine(), COST), ShapedEngine(ForkingEngine(), COST)
    assert not isinstance(plain, Forkable)
    assert isinstance(forking, Forkable)
    assert isinstance(plain, Charging)
    assert isinstance(forking, Charging)
    assert isinstance(ShapedEngine(forking, COST), Forkable)


def test_a_fork_holds_the_parents_tokens_and_is_charged_from_there():
    engine = ShapedEngine(ForkingEngine(), COST)
    assert isinstance(engine, Forkable)
    cache = engine.open()
    engine.extend([Chunk(cache, [1, 2, 3], 1)])
    engine.take_charge_s()
    copy = engine.fork(cache, 2)
    assert engine.take_charge_s() == 0
    assert engine.extend([Chunk(copy, [9], 1)]).tolist() == [[9, 2]]
    assert engine.take_charge_s() == COST.step_s([Work(2, 1)])


def test_a_model_too_big_for_the_phone_is_refused_when_it_is_loaded():
    with pytest.raises(CapacityError, match=r"16.00 GB weights"):
        ShapedEngine(ListEngine(), PhoneCost(COST.phone, parse_model("8B:fp16")))


def test_a_cache_that_outgrows_the_memory_is_refused_and_nothing_changes():
    # 8 GB for the app, less 0.8 of runtime and 6.43 of weights: room for 7,519 tokens of 102,400 bytes.
    model = parse_model("3.215B:fp16:layers=32,kv_heads=8,head_size=100")
    inner = ForkingEngine()
    engine = ShapedEngine(inner, PhoneCost(COST.phone, model))
    assert isinstance(engine, Forkable)
    one = engine.open()
    engine.extend([Chunk(one, [1] * 6000, 0)])
    engine.take_charge_s()
    two = engine.open()
    with pytest.raises(CapacityError, match="keys and values of 8000 tokens"):
        engine.extend([Chunk(two, [1] * 2000, 0)])
    with pytest.raises(CapacityError, match="keys and values of 12000 tokens"):
        engine.fork(one)
    assert (engine.length(two), inner.extended, engine.take_charge_s()) == (0, 1, 0)
    engine.close(one)
    engine.extend([Chunk(two, [1] * 5000, 0)])
    engine.fork(two, 2000)
    with pytest.raises(CapacityError, match="keys and values of 7600 tokens"):
        engine.extend([Chunk(two, [1] * 600, 0)])


def test_a_shortened_context_lets_every_slot_be_full_and_no_more():
    # 7,519 tokens of room; four slots of them.
    model = parse_model("3.215B:fp16:layers=32,kv_heads=8,head_size=100")
    inner = ForkingEngine()
    inner.description = dataclasses.replace(ListEngine.description, context_length=4096)
    engine = ShapedEngine(inner, PhoneCost(COST.phone, model), when_full=WhenFull.SHORTEN)
    assert isinstance(engine, Forkable)
    context = engine.description.context_length
    assert context == 7519 // 4
    caches = [engine.open() for _ in range(4)]
    for cache in caches:
        engine.extend([Chunk(cache, [1] * (context - 1), 0)])
    engine.extend([Chunk(cache, [1], 1) for cache in caches])
    extended = inner.extended
    with pytest.raises(CapacityError, match=f"1 tokens do not fit: 0 of {context} positions are left"):
        engine.extend([Chunk(caches[0], [1], 1)])
    assert (engine.length(caches[0]), inner.extended) == (context, extended)


def test_a_context_that_fits_anyway_is_not_shortened():
    engine = ShapedEngine(ListEngine(), COST, when_full=WhenFull.SHORTEN)
    assert engine.description == ListEngine.description


def test_a_model_that_leaves_no_room_for_any_context_is_refused_with_the_sum_either_way():
    cost = PhoneCost(COST.phone, parse_model("8B:fp16"))
    for when_full in WhenFull:
        with pytest.raises(CapacityError, match=r"16.00 GB weights .* the largest listed model that fits is "):
            ShapedEngine(ListEngine(), cost, when_full=when_full)


def test_the_profile_none_leaves_the_engine_as_it_is():
    engine = ListEngine()
    assert shape(engine, NOTHING) is engine
    assert shape(engine, CloudCost(profiles.cloud("none"), COST.model)) is engine
    assert isinstance(shape(engine, COST), ShapedEngine)


def test_a_step_on_the_runner_takes_exactly_its_emulated_time():
    async def steps() -> float:
        runner = EngineRunner(ShapedEngine(ListEngine(), COST))
        cache = await runner.run(lambda engine: engine.open())
        for token in range(10):
            await runner.run(lambda engine, token=token: engine.extend([Chunk(cache, [token], 1)]))
        return asyncio.get_running_loop().time()

    expected_s = sum(COST.step_s([Work(past, 1)]) for past in range(10))
    assert virtual_time.run(steps()) == pytest.approx(expected_s, rel=1e-12)
