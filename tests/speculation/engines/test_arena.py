"""ONNX Runtime's arena: passes of many shapes take no more than was reserved, measured in a process of their own."""

import random
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from speculation.engines import arena, grouping
from speculation.engines.base import Chunk, Reserves
from speculation.engines.onnx import OnnxEngine
from speculation.errors import CapacityError
from tests.speculation.engines.tiny import tiny_package, token_ids

SLOTS, ROWS, CONTEXT, PASSES = 32, 128, 256, 150
SHAPE = {"max_position_embeddings": CONTEXT, "hidden_size": 64, "num_attention_heads": 16, "num_key_value_heads": 8}
ALLOWED_KIB = 4096
"""What Python and NumPy may take meanwhile: it was 1.8 MiB. Without the reserve the passes took 80 MiB."""


def resident_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def passes_of_many_shapes(engine, rng):
    caches = [engine.open() for _ in range(SLOTS)]
    for _ in range(PASSES):
        left, chunks = ROWS, []
        for cache in rng.sample(caches, rng.randint(1, SLOTS)):
            count = min(left, rng.choice((1, 1, 2, 5, 9, 64, ROWS)))
            if count:
                engine.truncate(cache, min(engine.length(cache), rng.randint(0, CONTEXT - count)))
                chunks.append(Chunk(cache, token_ids(count), rng.choice((1, count))))
                left -= count
        engine.extend(chunks)


def growth_kib(folder: Path, variant: str, saved_least: int) -> int:
    """What this process took during the passes, behind a first one that reads the weights, and the reserve."""
    grouping.SAVED_LEAST = saved_least
    engine = OnnxEngine(tiny_package(folder, **SHAPE), variant, num_slots=SLOTS)
    assert engine.is_grouping is (saved_least == 0)
    engine._memory.fill(0)
    cache = engine.open()
    engine.extend([Chunk(cache, token_ids(ROWS), ROWS)])
    engine.close(cache)
    engine.reserve(ROWS)
    before = resident_kib()
    passes_of_many_shapes(engine, random.Random(3))
    return resident_kib() - before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("variant", "saved_least"), [("fp32", 1000), ("fp32", 0), ("fp32_kv16", 0), ("fp32_kv16", 1000)])
def test_passes_of_many_shapes_take_no_memory_beyond_what_was_reserved(tmp_path, variant, saved_least):
    code = "import sys; from tests.speculation.engines.test_arena import *; print(growth_kib(Path(sys.argv[1]), {!r}, {}))"
    command = [sys.executable, "-c", code.format(variant, saved_least), tmp_path]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(shown) < ALLOWED_KIB


def test_more_memory_than_there_is_cannot_be_reserved():
    with pytest.raises(CapacityError, match="memory for the widest pass"):
        arena.reserve(2**60)


def test_an_engine_of_a_packed_graph_can_reserve(tmp_path):
    assert isinstance(OnnxEngine(tiny_package(tmp_path), num_slots=1), Reserves)


def test_engines_share_an_arena_that_grows_by_what_a_pass_asks_for(tmp_path, monkeypatch):
    registered = []
    monkeypatch.setattr(onnxruntime, "create_and_register_allocator", lambda memory, arena: registered.append(arena))
    arena._share_exact_arena.cache_clear()
    package = tiny_package(tmp_path)
    sessions = [OnnxEngine(package, num_slots=1)._session for _ in range(2)]
    assert [one.arena_extend_strategy for one in registered] == [1]  # kSameAsRequested of onnxruntime_c_api.h
    for session in sessions:
        assert session.get_session_options().get_session_config_entry("session.use_env_allocators") == "1"
