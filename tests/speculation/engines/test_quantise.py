"""Rounding of weights to 4 and 8 bits."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from speculation.engines import loading, whole_sums
from speculation.engines.graph import IR_VERSION, OPSET, GraphParts, Matrix
from speculation.engines.onnx import OnnxEngine
from speculation.engines.quantise import (
    BLOCK,
    BLOCK_ZERO,
    BLOCKS,
    Int4Linear,
    Int8Linear,
    Int8RowLinear,
    from_int4_blocks,
    to_int4_blocks,
    to_int8_blocks,
)
from speculation.engines.whole_sums import are_whole
from speculation.errors import ConfigurationError
from tests.speculation.engines.tiny import tiny_package

CUT_OFF = "this processor cuts off sums of 8-bit blocks, so engines refuse them"


def named(linear):
    return f"{type(linear).__name__}-{getattr(linear, 'block', 'rows')}"


def rounded(weight):
    packed, scales = to_int4_blocks(weight)
    return from_int4_blocks(packed, scales, weight.shape[1])


@pytest.mark.parametrize("in_size", [BLOCK, 3 * BLOCK, 40, 7])
def test_rounding_keeps_the_shape_and_stays_within_half_a_step(in_size):
    weight = np.random.default_rng(0).normal(size=(5, in_size)).astype(np.float32)
    packed, scales = to_int4_blocks(weight)
    blocks = -(-in_size // BLOCK)
    assert (packed.shape, scales.shape) == ((5, blocks, BLOCK // 2), (5, blocks))
    assert rounded(weight).shape == weight.shape
    assert np.abs(rounded(weight) - weight).max() < 0.5


@pytest.mark.parametrize("block", BLOCKS)
def test_each_block_has_a_scale_of_its_own(block):
    """It is rounded as it would be alone."""
    weight = np.random.default_rng(2).normal(size=(3, 512)).astype(np.float32)
    packed, scales = to_int4_blocks(weight, block)
    assert (packed.shape, scales.shape) == ((3, 512 // block, block // 2), (3, 512 // block))
    alone, alone_scales = to_int4_blocks(weight[1:2, block : 2 * block], block)
    np.testing.assert_array_equal(packed[1, 1], alone[0, 0])
    assert scales[1, 1] == alone_scales[0, 0]


def test_smaller_blocks_are_closer():
    weight = np.random.default_rng(3).normal(size=(16, 512)).astype(np.float32)
    errors = [np.square(from_int4_blocks(*to_int4_blocks(weight, block), 512) - weight).mean() for block in BLOCKS]
    assert errors == sorted(errors)


def test_values_on_the_grid_are_kept():
    levels = np.tile(np.arange(-8, 8, dtype=np.float32), 2)
    weight = np.stack([levels * 0.5, -levels * 0.25])
    np.testing.assert_array_equal(rounded(weight), weight)


def test_a_block_of_zeros_stays_zero():
    assert not rounded(np.zeros((2, BLOCK), np.float32)).any()


def test_the_chosen_scales_are_better_than_those_that_just_cover_the_largest_weight():
    weight = np.random.default_rng(1).normal(size=(64, 4 * BLOCK)).astype(np.float32)
    blocks = weight.reshape(64, 4, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    plain = np.clip(np.rint(blocks / (largest / -8)), -8, 7) * (largest / -8)
    assert np.square(rounded(weight) - weight).mean() < 0.95 * np.square(plain - blocks).mean()


@pytest.mark.parametrize("block", BLOCKS)
def test_8_bits_in_blocks_stay_within_half_a_step_of_the_blocks_own(block):
    weight = np.random.default_rng(4).normal(size=(5, 3 * block - 7)).astype(np.float32)
    levels, scales = to_int8_blocks(weight, block)
    assert (levels.shape, scales.shape) == ((5, 3, block), (5, 3))
    values = ((levels.astype(np.float32) - BLOCK_ZERO) * scales[..., None]).reshape(5, -1)
    padded = np.pad(weight, ((0, 0), (0, 7)))
    assert (np.abs(values - padded) <= np.repeat(scales, block, axis=1) * 0.5001).all()
    largest = np.abs(padded.reshape(5, 3, block)).max(axis=-1)
    np.testing.assert_allclose(scales, largest / 127, rtol=1e-6)


def test_8_bits_in_blocks_of_zeros_stay_zero():
    levels, scales = to_int8_blocks(np.zeros((2, BLOCK), np.float32))
    assert (levels == BLOCK_ZERO).all()
    assert np.isfinite(scales).all()


@pytest.mark.parametrize("linear", [*map(Int8Linear, BLOCKS), *map(Int4Linear, BLOCKS), Int8RowLinear()], ids=named)
def test_a_linear_layer_multiplies_by_what_its_weights_were_rounded_to(linear):
    """Closer the more bits it has; in_size is no multiple of a block."""
    if isinstance(linear, Int8Linear) and not are_whole(linear.block):
        pytest.skip(CUT_OFF)
    random = np.random.default_rng(5)
    weight, rows = random.normal(size=(24, 300)).astype(np.float32), random.normal(size=(5, 300)).astype(np.float32)
    error = product(linear, rows, weight) - rows @ weight.T
    most = 0.25 if isinstance(linear, Int4Linear) else 0.03
    assert np.sqrt(np.square(error).mean()) < most * np.sqrt(np.square(rows @ weight.T).mean())


def test_rows_of_8_bits_may_be_zeros_or_next_to_nothing():
    rows = np.array([0, 1e-44, 1e-39, 1e30], np.float32)[:, None] * np.ones(64, np.float32)
    found = product(Int8RowLinear(), rows, np.ones((4, 64), np.float32))
    np.testing.assert_allclose(found, np.repeat(64 * rows[:, :1], 4, axis=1), rtol=0.05)


LARGEST = [(np.full((16, 256), 0.5 * sign, np.float32), np.full((4, 256), 3, np.float32)) for sign in (1, -1)]


@pytest.mark.parametrize(("weight", "rows"), LARGEST, ids=["positive", "negative"])
def test_the_largest_8_bit_products_of_rows_are_summed_whole_on_every_processor(weight, rows):
    """Where 16 bits are all that two of them get, too; ONNX Runtime is asked, not the rule."""
    np.testing.assert_allclose(product(Int8RowLinear(), rows, weight), rows @ weight.T, rtol=1e-5)


@pytest.mark.parametrize("block", BLOCKS)
def test_whether_those_of_blocks_are_is_known(block):
    found = [np.allclose(product(Int8Linear(block), rows, weight), rows @ weight.T, rtol=1e-3) for weight, rows in LARGEST]
    assert are_whole(block) is all(found)


def test_sums_that_are_cut_off_are_seen(monkeypatch):
    """As a processor without VNNI would cut them, at 16 bits: a runtime that gives half of what is right."""

    class Session:
        def __init__(self, *_given, **_named):
            pass

        def run(self, _names, feeds):
            return [np.full((len(feeds["x"]), 16), 128, np.float32)]

    monkeypatch.setattr(whole_sums.onnxruntime, "InferenceSession", Session)
    assert not are_whole.__wrapped__(32)


def test_8_bits_in_blocks_are_refused_where_their_sums_are_cut_off(tmp_path, monkeypatch):
    package = tiny_package(tmp_path / "tiny", variants=("fp32", "q8_b64"))
    asked = []
    monkeypatch.setattr(loading, "are_whole", lambda block: asked.append(block))
    with pytest.raises(ConfigurationError, match="cuts off sums of 8-bit blocks on this processor; take i8, q4 or fp32"):
        OnnxEngine(package, "q8_b64", 1)
    OnnxEngine(package, "fp32", 1)
    assert asked == [64]


def product(linear, rows, weight):
    """``rows @ weight.T`` as a runtime computes it by a linear layer."""
    parts = GraphParts()
    linear.emit(parts, "y", "x", Matrix(("w",), (weight.shape,), {"w": weight}))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in "xy"]
    graph = helper.make_graph(parts.nodes, "product", values[:1], values[1:], list(parts.constants.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": rows})[0]
