"""How models are pruned and asked, by numbers that can be worked out by hand."""

import numpy as np
import pytest

from benchmarks.quantised_models import (
    PASSES,
    half_of_all,
    losses_of,
    pruned,
    rows_a_second,
    slots,
    two_of_four,
    variant_names,
    with_variants,
)
from speculation.engines.model import graph_variant
from speculation.engines.onnx import OnnxEngine
from speculation.engines.whole_sums import are_whole
from tests.speculation.engines.tiny import reference_logits, tiny_package, token_ids


def test_two_of_every_four_stay_where_they_were():
    weight = np.array([[1, -5, 2, 3, 0.5, 0.25, -0.75, 0.1]], np.float32)
    np.testing.assert_array_equal(two_of_four(weight), [[0, -5, 0, 3, 0.5, 0, -0.75, 0]])


def test_the_larger_half_stays_wherever_it_is():
    weight = np.array([[1, -5, 2, 3], [0.5, 0.25, -0.75, 0.1]], np.float32)
    np.testing.assert_array_equal(half_of_all(weight), [[1, -5, 2, 3], [0, 0, 0, 0]])


@pytest.mark.parametrize("way", ["half, anywhere", "2 of 4"])
def test_a_pruned_package_has_zeros_in_its_layers_alone(tmp_path, way):
    package = tiny_package(tmp_path / "tiny", variants=("fp32",))
    found, share = pruned(package, tmp_path / "pruned", way)
    embeddings, norms = 272 * 32, 5 * 32
    assert share == pytest.approx((package.num_parameters - embeddings - norms) / 2 / package.num_parameters, abs=1e-3)
    assert found.num_parameters == package.num_parameters


def test_the_loss_is_that_of_a_plain_forward(tmp_path):
    package, tokens = tiny_package(tmp_path, variants=("fp32",)), token_ids(20)
    logits = reference_logits(package, tokens)[:-1]
    wanted = [np.log(np.exp(row).sum()) - row[token] for row, token in zip(logits, tokens[1:], strict=True)]
    np.testing.assert_allclose(losses_of(OnnxEngine(package, num_slots=1), tokens), wanted, atol=1e-3)


def test_every_variant_is_made_and_timed(tmp_path):
    package = with_variants(tiny_package(tmp_path / "tiny", variants=("fp32", "q4")), tmp_path / "copy")
    in_8 = [name for name, block in (("q8", 32), ("q8_b64", 64), ("q8_b128", 128)) if are_whole(block)]
    blocks = ["q4_b16", "q4", "q4_b64", "q4_b128", "q4_b256"]
    assert variant_names() == [
        "fp32",
        "i8",
        *in_8,
        *(name for block in blocks for name in (block, f"{block}_cal")),
        *(f"{name}_kv16" for name in ("fp32", "i8", "q4")),
    ]
    assert set(package.variants) == {graph_variant(name) for name in variant_names()}
    engines = {variant: OnnxEngine(package, variant, slots()) for variant in variant_names()}
    found = rows_a_second(engines, 1, "tiny")
    assert [engine.open() for engine in engines.values() for _ in range(slots())]
    assert all(speeds.keys() == PASSES.keys() and min(speeds.values()) > 0 for speeds in found.values())
