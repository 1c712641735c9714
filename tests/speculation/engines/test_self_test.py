"""The self-test must be green where the promise holds, and red where it does not."""

import numpy as np
import pytest

from speculation.engines import self_test
from speculation.engines.base import Chunk
from speculation.engines.onnx import OnnxEngine
from speculation.engines.quantise import BLOCKS
from speculation.engines.random import RandomEngine
from speculation.engines.variants import blocks_name
from speculation.engines.whole_sums import are_whole
from tests.speculation.engines.tiny import OneRowEngine, tiny_package
from tests.support.processor import gives_pairs_alike, gives_rows_alike


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_package(tmp_path_factory.mktemp("tiny"))


class LoneRowOff(RandomEngine):
    """Gives other bits when a pass has one row only."""

    def extend(self, chunks):
        logits = super().extend(chunks)
        return np.nextafter(logits, np.float32(9)) if len(logits) == 1 else logits


class NeighbourOff(RandomEngine):
    """Lets neighbours change the last bit of the last row."""

    def extend(self, chunks):
        logits = super().extend(chunks)
        if len(chunks) > 1 and len(logits):
            logits[-1, 0] = np.nextafter(logits[-1, 0], np.float32(9))
        return logits


class OddRowsOff(RandomEngine):
    """Gives other bits to the last of an odd number of rows. ``mends``: not once rows are paired."""

    mends = True

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        self.is_paired = False

    def pair_rows(self, is_wanted):
        self.is_paired = is_wanted and self.mends

    def extend(self, chunks):
        logits = super().extend(chunks)
        if sum(len(chunk.token_ids) for chunk in chunks) % 2 and len(logits) and not self.is_paired:
            logits[-1, 0] = np.nextafter(logits[-1, 0], np.float32(9))
        return logits


class OddRowsOffForGood(OddRowsOff):
    mends = False


@pytest.mark.parametrize("variant", ["fp32", "q4", "i8"])
def test_the_engine_is_exact(package, variant):
    found = self_test.run(OnnxEngine(package, variant, num_slots=4))
    assert found.is_exact is (variant != "q4" or gives_rows_alike()), found.details


@pytest.mark.parametrize("variant", ["fp32", "q4", "i8"])
def test_without_the_even_rows_it_is_not(package, variant):
    found = self_test.run(OneRowEngine(package, variant, num_slots=4))
    assert not found.is_exact
    assert not any(line.startswith("pieces: 0 of") for line in found.details)


@pytest.mark.parametrize("kind", [LoneRowOff, NeighbourOff])
def test_a_single_bit_is_seen(kind):
    assert self_test.run(RandomEngine(64, 96, seed=1)).is_exact
    assert not self_test.run(kind(64, 96, seed=1)).is_exact


@pytest.mark.parametrize("num_slots", [1, 2])
def test_few_places_are_enough(package, num_slots):
    engine = OnnxEngine(package, num_slots=num_slots)
    assert self_test.run(engine).is_exact
    assert [engine.open() for _ in range(num_slots)]


@pytest.mark.parametrize("context_length", [1, 2, 3, 40, 600])
def test_any_context_length_will_do(context_length):
    assert self_test.run(RandomEngine(16, context_length, seed=0)).is_exact


def test_the_fingerprint_is_that_of_the_logits(package, tmp_path):
    first, again = (self_test.run(OnnxEngine(package, num_slots=2)).fingerprint for _ in range(2))
    other = self_test.run(OnnxEngine(tiny_package(tmp_path, seed=7), num_slots=2)).fingerprint
    quantised = self_test.run(OnnxEngine(package, "q4", num_slots=2)).fingerprint
    assert first == again
    assert len({first, other, quantised}) == 3
    assert len(first) == self_test.FINGERPRINT_DIGITS


def test_the_lengths_are_those_at_which_kernels_change():
    assert self_test.row_counts(32, 10_000) == [1, 2, 63, 65, 66, 129, 513]
    assert self_test.row_counts(32, 100) == [1, 2, 63, 65, 66, 100]


def test_rows_are_paired_where_that_mends(caplog):
    engine = OddRowsOff(64, 96, seed=1)
    assert not self_test.run(engine).is_exact
    assert self_test.make_exact(engine).is_exact
    assert engine.is_paired
    assert "odd numbers of rows get one more" in caplog.text


def test_rows_are_left_alone_where_pairing_does_not_mend(caplog):
    engine = OddRowsOffForGood(64, 96, seed=1)
    asked = []
    engine.pair_rows = asked.append
    assert not self_test.make_exact(engine).is_exact
    assert asked == [True, False]
    assert "nothing here can mend it" in caplog.text


BLOCKED = [(bits, block) for bits in (4, 8) for block in BLOCKS]


@pytest.mark.parametrize(("bits", "block"), BLOCKED)
def test_graphs_in_blocks_can_be_made_exact_where_the_processor_takes_rows_in_twos(blocked, bits, block):
    if bits == 8 and not are_whole(block):
        pytest.skip("this processor cuts off sums of 8-bit blocks, so engines refuse them")
    engine = OnnxEngine(blocked, blocks_name(bits, block), num_slots=4)
    assert self_test.make_exact(engine).is_exact or not gives_pairs_alike(bits, block)


@pytest.fixture(scope="module")
def blocked(tmp_path_factory):
    return tiny_package(tmp_path_factory.mktemp("blocked"), variants=tuple(blocks_name(*each) for each in BLOCKED))


def test_paired_rows_change_no_logits_of_an_engine_that_was_exact_before(package):
    plain, paired = (OnnxEngine(package, num_slots=3) for _ in range(2))
    paired.pair_rows(True)
    random = np.random.default_rng(3)
    caches = [(plain.open(), paired.open()) for _ in range(3)]
    for _ in range(40):
        shares = [(lane, int(random.integers(1, 7))) for lane in range(3) if random.random() < 0.7]
        asked = [(lane, random.integers(0, 50, count).tolist(), int(random.integers(0, count + 1))) for lane, count in shares]
        for lane, token_ids, _ in asked:
            if plain.length(caches[lane][0]) + len(token_ids) > plain.description.context_length:
                for engine, cache in zip((plain, paired), caches[lane], strict=True):
                    engine.truncate(cache, 2)
        rows = [
            engine.extend([Chunk(caches[lane][which], token_ids, wanted) for lane, token_ids, wanted in asked])
            for which, engine in enumerate((plain, paired))
        ]
        assert rows[0].shape == rows[1].shape
        np.testing.assert_array_equal(*rows)
