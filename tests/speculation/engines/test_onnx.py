"""What an engine keeps of its passes; what they give is held by the conformance suite."""

import itertools
import tracemalloc

import numpy as np
import pytest

from speculation.engines.base import Chunk
from speculation.engines.onnx import LOGITS_KEPT_BOUND, OnnxEngine
from speculation.engines.packing import KEPT_PACKINGS, pack
from tests.speculation.engines.tiny import tiny_package

SLOTS = 8


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_package(tmp_path_factory.mktemp("tiny"))


def test_no_plan_of_memory_is_kept_for_every_shape_of_a_pass(package):
    assert not OnnxEngine(package, num_slots=1)._session.get_session_options().enable_mem_pattern


@pytest.mark.parametrize("num_logits", [LOGITS_KEPT_BOUND, LOGITS_KEPT_BOUND + 2])
def test_no_range_of_slots_holds_on_to_the_logits_of_its_last_pass(package, num_logits):
    engine = OnnxEngine(package, num_slots=SLOTS)
    caches = [engine.open() for _ in range(SLOTS)]
    ranges = list(itertools.combinations(caches, 2))
    tracemalloc.start()
    try:
        for pair in ranges:
            logits = engine.extend([Chunk(cache, [1] * (num_logits // 2), num_logits // 2) for cache in pair])
            for cache in pair:
                engine.truncate(cache, 0)
        arrays = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
    finally:
        tracemalloc.stop()
    assert sum(trace.size for trace in arrays.traces) < len(ranges) * logits.nbytes / 4


def test_of_passes_that_never_come_again_few_leave_their_index_arrays(package):
    num_slots = 3 * SLOTS
    engine = OnnxEngine(package, num_slots=num_slots)
    caches = [engine.open() for _ in range(num_slots)]
    widest_first = sorted(itertools.combinations(range(num_slots), 2), key=lambda ends: ends[0] - ends[1])
    shapes = list(itertools.product(range(40, 54), range(40, 54)))[: 3 * KEPT_PACKINGS]
    pack.cache_clear()
    tracemalloc.start()
    try:
        for counts, ends in zip(shapes, widest_first, strict=False):
            pair = [caches[end] for end in ends]
            engine.extend([Chunk(cache, [1] * count, 0) for cache, count in zip(pair, counts, strict=True)])
            for cache in pair:
                engine.truncate(cache, 0)
        arrays = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)])
    finally:
        tracemalloc.stop()
    packing = pack(((0, 53, 0, False), (num_slots - 1, 53, 0, False)), num_slots, 2)
    largest = sum(array.nbytes for array in (packing.pad_idx, packing.unpad_idx, packing.query_seqlens))
    assert sum(trace.size for trace in arrays.traces) < (KEPT_PACKINGS + SLOTS) * largest


def test_a_session_that_is_alone_is_bound_once_for_each_shape_of_pass_and_gets_the_same_logits(package, monkeypatch):
    alone, other = OnnxEngine(package, num_slots=2), OnnxEngine(package, num_slots=2)
    other.open()  # so that its passes share one binding
    caches = [(engine, engine.open()) for engine in (alone, other)]
    bound = []
    for engine, _ in caches:
        monkeypatch.setattr(engine, "_session", Counting(engine._session, engine, bound))
    for count in (3, 1, 5, 3, 5, 1, 3):
        found = [engine.extend([Chunk(cache, [7, *range(1, count)], count)]) for engine, cache in caches]
        np.testing.assert_array_equal(*found)
        for engine, cache in caches:
            engine.truncate(cache, engine.length(cache) - count // 2)
    assert (bound.count(alone), bound.count(other)) == (3, 1)


def test_the_range_of_slots_that_was_bound_first_makes_room_for_a_new_one(package, monkeypatch):
    monkeypatch.setattr("speculation.engines.onnx.MAX_BINDINGS", 2)
    engine, bound = OnnxEngine(package, num_slots=4), []
    caches = [engine.open() for _ in range(4)]
    monkeypatch.setattr(engine, "_session", Counting(engine._session, engine, bound))
    found = []
    for number, times in ((0, 1), (1, 2), (2, 3), (1, 3), (2, 3), (0, 4), (2, 4), (1, 5)):
        found.append(engine.extend([Chunk(caches[number], [7, 8], 2)]))
        engine.truncate(caches[number], 0)
        np.testing.assert_array_equal(found[-1], found[0])
        assert len(bound) == times
        assert len(engine._bindings) <= 2


class Counting:
    """A session of ONNX Runtime that notes whose bindings it makes."""

    def __init__(self, session, engine, bound):
        self._session, self._engine, self._bound = session, engine, bound

    def io_binding(self):
        self._bound.append(self._engine)
        return self._session.io_binding()

    def run_with_iobinding(self, binding):
        self._session.run_with_iobinding(binding)
