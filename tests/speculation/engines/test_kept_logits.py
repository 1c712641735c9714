"""Logits are written to memory of the engine's, as long as nobody can see it."""

import numpy as np
import pytest

from speculation.engines.base import Chunk
from speculation.engines.kept_logits import LOGITS_KEPT_BOUND, KeptLogits
from speculation.engines.onnx import OnnxEngine
from tests.speculation.engines.tiny import tiny_package


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_package(tmp_path_factory.mktemp("tiny"))


def extended(engine, cache, token_ids):
    rows = engine.extend([Chunk(cache, token_ids, len(token_ids))])
    engine.truncate(cache, 0)
    return rows


@pytest.mark.parametrize("count", [1, 2, 5, LOGITS_KEPT_BOUND, LOGITS_KEPT_BOUND + 2])
@pytest.mark.parametrize(
    "part", [lambda rows: rows, lambda rows: rows[0], lambda rows: rows[-1:, 3:].T, memoryview, lambda rows: list(rows)]
)
def test_what_somebody_holds_of_a_pass_no_later_pass_writes_to(package, part, count):
    engine = OnnxEngine(package, num_slots=1)
    cache = engine.open()
    extended(engine, cache, [1] * count)
    held = part(extended(engine, cache, [2] * count))
    before = np.array(held)
    for token_id in (3, 4, 5):
        for size in (1, count, count + 1):
            extended(engine, cache, [token_id] * size)
    assert np.array_equal(np.array(held), before)


def test_all_that_is_held_of_many_passes_is_what_each_gave(package):
    engine = OnnxEngine(package, num_slots=1)
    cache = engine.open()
    wanted = [extended(engine, cache, [token_id] * 3).copy() for token_id in range(8)]
    held = [extended(engine, cache, [token_id] * 3) for token_id in range(8)]
    assert all(np.array_equal(*pair) for pair in zip(held, wanted, strict=True))


def test_what_nobody_holds_is_written_again_and_no_further_memory_taken(package):
    engine = OnnxEngine(package, num_slots=1)
    cache = engine.open()

    def place(rows):
        return rows.__array_interface__["data"][0]

    first = place(extended(engine, cache, [1, 2]))
    assert {place(extended(engine, cache, [1] * count)) for count in (1, 2, 3, 2, 1)} == {first}
    held = extended(engine, cache, [1, 2])
    assert place(held) == first
    assert place(extended(engine, cache, [1, 2])) != first
    del held
    assert place(extended(engine, cache, [1, 2])) == first


def test_a_part_counts_as_the_rows_it_is_cut_from():
    kept = KeptLogits(10)
    rows, _ = kept.first(4)
    part = rows[1, 2:4]
    del rows
    assert kept.first(2) is None
    del part
    assert kept.first(2) is not None
