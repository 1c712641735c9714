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
    packing = pack(((0, 53, 0), (num_slots - 1, 53, 0)), num_slots, 2)
    largest = sum(array.nbytes for array in (packing.pad_idx, packing.unpad_idx, packing.query_seqlens))
    assert sum(trace.size for trace in arrays.traces) < (KEPT_PACKINGS + SLOTS) * largest
