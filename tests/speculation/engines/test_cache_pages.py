"""Memory of caches that goes back: what is resident, what is counted for it, and that the bits are those of fresh memory."""

import ctypes
import mmap

import numpy as np
import pytest

from speculation.engines import cache_pages, self_test
from speculation.engines.base import Chunk
from speculation.engines.cache_pages import CachePages
from speculation.engines.exports import ExportFolder
from speculation.engines.onnx import OnnxEngine
from speculation.errors import CapacityError, ConfigurationError
from tests.speculation.engines.stock_graphs import export_folder
from tests.speculation.engines.tiny import tiny_package, token_ids

SLOTS, CONTEXT = 64, 1024


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_package(tmp_path_factory.mktemp("tiny"), max_position_embeddings=CONTEXT)


@pytest.fixture
def engine(package):
    engine = OnnxEngine(package, num_slots=SLOTS)
    engine.give_back_memory()
    return engine


def resident_bytes(array):
    """What of an array's memory is there, by the system's own count."""
    states = (ctypes.c_ubyte * (array.nbytes // mmap.PAGESIZE))()
    assert not ctypes.CDLL(None).mincore(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), states)
    return sum(state & 1 for state in states) * mmap.PAGESIZE


def packed(path):
    engine = OnnxEngine(tiny_package(path, max_position_embeddings=CONTEXT), num_slots=SLOTS)
    return engine, [engine._memory]


def ragged(path):
    export = export_folder(path, graphs={"model.onnx": {"attention": "gqa"}}, max_position_embeddings=CONTEXT)
    engine = ExportFolder(export).engine("fp32", SLOTS, 1)
    return engine, engine._pools


@pytest.mark.parametrize("length", [1, 100, 513, CONTEXT])
def test_a_cache_takes_no_more_memory_than_is_counted_for_its_length(engine, length):
    engine.extend([Chunk(engine.open(), token_ids(length), 1)])
    assert length * engine.description.kv_bytes_per_token <= resident_bytes(engine._memory) <= engine.cache_bytes(length)


def test_a_cache_that_was_cut_and_filled_again_takes_no_more_than_when_it_was_longest(engine):
    cache = engine.open()
    for length in (200, 3, 150):
        engine.truncate(cache, min(engine.length(cache), length // 2))
        engine.extend([Chunk(cache, token_ids(length - engine.length(cache)), 1)])
    assert resident_bytes(engine._memory) <= engine.cache_bytes(200)


def test_closed_caches_give_all_back_and_open_ones_keep_theirs(engine):
    caches = [engine.open() for _ in range(4)]
    engine.extend([Chunk(cache, token_ids(300), 1) for cache in caches])
    written = engine._memory[:, 1, :, :300]  # what is only looked at is resident, too
    kept = written.copy()
    for cache in (caches[0], caches[2], caches[3]):
        engine.close(cache)
    assert np.array_equal(written, kept)
    assert resident_bytes(engine._memory) <= engine.cache_bytes(300)


def test_pages_that_two_slots_share_stay_as_long_as_one_of_them_is_there():
    pages = CachePages((2, 3, 1, 300, 8))  # 9600 bytes a slot: no whole number of pages
    pages.in_small_pages()
    pages.array[:] = 1
    pages.give_back(1)
    assert (pages.array[:, [0, 2]] == 1).all()
    assert not pages.array[:, 1].all()


def test_logits_from_memory_that_was_given_back_are_those_of_fresh_memory_bit_for_bit(package, engine):
    fresh = OnnxEngine(package, num_slots=SLOTS)
    tokens = token_ids(400)
    for _ in range(2):
        cache, other = engine.open(), fresh.open()
        for start, end in ((0, 129), (129, 130), (130, 400)):
            found, wanted = (e.extend([Chunk(c, tokens[start:end], 1)]) for e, c in ((engine, cache), (fresh, other)))
            assert found.tobytes() == wanted.tobytes()
        engine.close(cache)
        fresh.close(other)


def test_the_self_test_proves_an_engine_that_gives_memory_back_and_has_the_same_fingerprint(package, engine):
    tested = self_test.run(engine)
    assert tested.is_exact
    assert tested.fingerprint == self_test.run(OnnxEngine(package, num_slots=SLOTS)).fingerprint
    assert resident_bytes(engine._memory) == 0


def test_memory_is_not_given_back_under_a_cache_that_is_open(package):
    engine = OnnxEngine(package, num_slots=1)
    engine.open()
    with pytest.raises(ConfigurationError, match="before one is opened"):
        engine.give_back_memory()


def test_a_pool_that_no_system_grants_is_a_refusal():
    with pytest.raises(CapacityError, match="bytes for caches"):
        CachePages((2, 1 << 20, 1 << 10, 1 << 20, 128))


@pytest.mark.parametrize("engine_of", [packed, ragged])
def test_in_a_large_pool_each_cache_takes_what_it_holds(tmp_path, monkeypatch, engine_of):
    """As in one of a small one it may: the first tokens of all caches must not take all of a gigabyte and more."""
    monkeypatch.setattr(cache_pages, "LARGE_PAGES_LIMIT_BYTES", 0)
    engine, arrays = engine_of(tmp_path)
    for _ in range(SLOTS):
        engine.extend([Chunk(engine.open(), token_ids(4), 1)])
    pool_bytes = sum(array.nbytes for array in arrays)
    assert pool_bytes > 16 << 20
    assert 0 < sum(resident_bytes(array) for array in arrays) < pool_bytes / 8
