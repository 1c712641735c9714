"""The self-test must be green where the promise holds, and red where it does not."""

import numpy as np
import pytest

from speculation.engines import self_test
from speculation.engines.onnx import OnnxEngine
from speculation.engines.random import RandomEngine
from tests.speculation.engines.tiny import OneRowEngine, tiny_package
from tests.support.processor import gives_rows_alike_in_4_bits


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


@pytest.mark.parametrize("variant", ["fp32", "q4", "i8"])
def test_the_engine_is_exact(package, variant):
    found = self_test.run(OnnxEngine(package, variant, num_slots=4))
    assert found.is_exact is (variant != "q4" or gives_rows_alike_in_4_bits()), found.details


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
