"""Linear layers with fewer bits, as emitters for ``graph.build``.

``Int4Linear``, ``Int8Linear``: blocks of weights share one scale (``MatMulNBits``), 32 of them unless said otherwise;
activations are rounded to 8 bits (accuracy level 4), the fast path on a CPU at small batches. ``Int8RowLinear``: one scale an
activation row and one an output channel, summed in integers, so that a row's result does not depend on its neighbours.

x86 without VNNI adds two products of an unsigned and a signed byte in 16 bits and cuts off what does not fit (``vpmaddubsw``).
Weights up to 63 always fit, 2 * 255 * 63 < 2**15, so those of rows have 7 bits and the product is fast and right on every
processor. Those of blocks have 8, and their sums are ONNX Runtime's own affair: ``whole_sums.py`` asks it.
Signed activations would spare that bit, but ONNX Runtime multiplies them there without vector instructions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from speculation.engines.graph import GraphParts, Matrix

BLOCK = 32
BLOCKS = (16, 32, 64, 128, 256)
"""Weights that share a scale. ``MatMulNBits`` takes powers of two from 16 on, and no more than 256."""
ACCURACY_LEVEL = 4
MOST_INT8, MOST_ROW, ROW_ZERO = 63, 127, 128
"""The largest level of a weight and of an activation, and the byte that stands for an activation of zero."""
MOST_IN_BLOCK, BLOCK_ZERO = 127, 128
"""The largest level of an 8-bit weight in a block, and the byte that stands for a weight of zero."""
SHRINKS = np.linspace(0.76, 1.0, 13)
"""Scales tried for a block, relative to the one that just covers its largest weight."""
SLICE_WEIGHTS = 1 << 17
"""Weights rounded at a time: some temporaries are as large in float32, and rows do not depend on each other."""


def to_int4_blocks(
    weight: NDArray[np.float32], block: int = BLOCK, importance: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round a matrix [out, in] to 4 bits with the scale of least squared error for each ``block`` weights of a row.

    ``importance`` [in] says how much an error of each column counts; without it all count alike.
    Returns packed values uint8 [out, blocks, block / 2], low half first, with zero point 8, and scales float32 [out, blocks].
    """
    out_size, in_size = weight.shape
    blocks = -(-in_size // block)
    packed, scales = np.empty((out_size, blocks, block // 2), np.uint8), np.empty((out_size, blocks), np.float32)
    counts = _padded(importance[None], blocks, block) if importance is not None else np.ones((1, blocks, block), np.float32)
    for rows in _slices(weight.shape):
        values = _padded(weight[rows], blocks, block)
        scales[rows] = _best_scales(values, counts)
        levels = _levels(values, scales[rows])
        packed[rows] = (levels[..., 0::2] | levels[..., 1::2] << 4).astype(np.uint8)
    return packed, scales


def to_int8_blocks(weight: NDArray[np.float32], block: int = BLOCK) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Round a matrix [out, in] to 8 bits with a scale for each ``block`` weights of a row, which covers the largest of them.

    Returns values uint8 [out, blocks, block] with zero point 128, and scales float32 [out, blocks].
    """
    out_size, in_size = weight.shape
    blocks = -(-in_size // block)
    levels, scales = np.empty((out_size, blocks, block), np.uint8), np.empty((out_size, blocks), np.float32)
    for rows in _slices(weight.shape):
        values = _padded(weight[rows], blocks, block)
        scales[rows] = _covering(np.abs(values).max(axis=-1), MOST_IN_BLOCK)
        signed = np.clip(np.rint(values / scales[rows][..., None]), -MOST_IN_BLOCK, MOST_IN_BLOCK)
        levels[rows] = (signed + BLOCK_ZERO).astype(np.uint8)
    return levels, scales


def to_int8_rows(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round a matrix [out, in] to int8, at most ``MOST_INT8`` either way, with a scale for each of its rows, float32 [out]."""
    levels, scales = np.empty(weight.shape, np.int8), np.empty(len(weight), np.float32)
    for rows in _slices(weight.shape):
        scales[rows] = _covering(np.abs(weight[rows]).max(axis=1), MOST_INT8)
        levels[rows] = np.clip(np.rint(weight[rows] / scales[rows][:, None]), -MOST_INT8, MOST_INT8)
    return levels, scales


def _covering(largest: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Scales by which the largest weights are ``most`` levels; never zero."""
    return np.asarray(np.maximum(largest, np.finfo(np.float32).tiny) / np.float32(most))


def _slices(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of a matrix, so many at a time that temporaries stay small."""
    step = max(1, SLICE_WEIGHTS // shape[1])
    yield from (slice(start, start + step) for start in range(0, shape[0], step))


def _padded(rows: NDArray[np.float32], blocks: int, block: int) -> NDArray[np.float32]:
    """Rows in blocks, [rows, blocks, block], with zeros behind the last value."""
    padded = np.zeros((len(rows), blocks * block), np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded.reshape(len(rows), blocks, block)


def from_int4_blocks(packed: NDArray[np.uint8], scales: NDArray[np.float32], in_size: int) -> NDArray[np.float32]:
    """The matrix [out, in] that packed values stand for."""
    levels = np.stack((packed & 15, packed >> 4), axis=-1).reshape(*scales.shape, 2 * packed.shape[-1])
    values = (levels.astype(np.float32) - 8) * scales[..., None]
    return values.reshape(len(scales), -1)[:, :in_size]


def _best_scales(values: NDArray[np.float32], counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Levels reach from -8 to 7, so the largest weight, of either sign, is put on the side of -8."""
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=-1, keepdims=True), axis=-1)[..., 0]
    full = np.where(largest == 0, 1, largest / -8).astype(np.float32)
    best, least = full, np.full(full.shape, np.inf, np.float32)
    for shrink in SHRINKS:
        scales = (full * shrink).astype(np.float32)
        error = (np.square(values - (_levels(values, scales) - 8.0) * scales[..., None]) * counts).sum(axis=-1)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def _levels(values: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int32]:
    levels: NDArray[np.int32] = np.clip(np.rint(values / scales[..., None]) + 8, 0, 15).astype(np.int32)
    return levels


@dataclass(frozen=True, slots=True)
class Int4Linear:
    """4-bit weights with a scale for each ``block`` of them, 8-bit activations.

    ``importance``: by name of the layer, how much an error of each of its columns counts (``importance.py``).
    """

    block: int = BLOCK
    importance: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def emit(self, parts: GraphParts, name: str, x: str, weight: Matrix, stored: str | None = None) -> str:
        return _by_blocks(parts, name, x, weight, 4, to_int4_blocks(weight.read(), self.block, self.importance.get(name)))


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """8-bit weights with a scale for each ``block`` of them, 8-bit activations."""

    block: int = BLOCK

    def emit(self, parts: GraphParts, name: str, x: str, weight: Matrix, stored: str | None = None) -> str:
        return _by_blocks(parts, name, x, weight, 8, to_int8_blocks(weight.read(), self.block))


def _by_blocks(
    parts: GraphParts,
    name: str,
    x: str,
    weight: Matrix,
    bits: int,
    rounded: tuple[NDArray[np.uint8], NDArray[np.float32]],
) -> str:
    """The product with weights in blocks of so many bits: bytes [out, blocks, bytes of a block], and scales [out, blocks]."""
    packed, scales = rounded
    inputs = [x, parts.constant(f"{name}.weight_q{bits}", packed), parts.constant(f"{name}.scales", scales.reshape(-1))]
    sizes = {"K": weight.shape[1], "N": weight.shape[0], "block_size": packed.shape[-1] * 8 // bits}
    return parts.node("MatMulNBits", inputs, name, "com.microsoft", **sizes, bits=bits, accuracy_level=ACCURACY_LEVEL)


class Int8RowLinear:
    """Weights in 8 bits, of which 7 are used, with a scale a channel; 8-bit activations with a scale a row.

    A decoding step is as long as its nodes are many, so rows are made to reach from -1 to 1 and rounded with one scale for all.
    The product's own last step multiplies by that and by the channels' scales.
    """

    def emit(self, parts: GraphParts, name: str, x: str, weight: Matrix, stored: str | None = None) -> str:
        levels, scales = to_int8_rows(weight.read())
        matrix = parts.constant(f"{name}.weight_i8", levels.T)
        channel = parts.constant(f"{name}.scales", scales)
        step = parts.constant("row_step", np.array(1 / MOST_ROW, np.float32), is_read_whole=False)
        zero = parts.constant("row_zero", np.array(ROW_ZERO, np.uint8), is_read_whole=False)
        axis = parts.constant("last_axis", np.array([-1], np.int64), is_read_whole=False)
        most = parts.node("ReduceMax", [parts.node("Abs", [x], f"{name}.size"), axis], f"{name}.most", keepdims=1)
        # A row of zeros has no such factor. Whatever it is rounded to is multiplied by 0 in the end.
        even = parts.node("Mul", [x, parts.node("Reciprocal", [most], f"{name}.factor")], f"{name}.even")
        rows = parts.node("QuantizeLinear", [even, step, zero], f"{name}.rows")
        total = parts.node("MatMulIntegerToFloat", [rows, matrix, step, channel, zero], f"{name}.by_channel", "com.microsoft")
        return parts.node("Mul", [total, most], name)
