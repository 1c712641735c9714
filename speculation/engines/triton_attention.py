"""Attention of a step's rows over a paged pool, in Triton: on a GPU what ``torch_attention.py`` does elsewhere.

One program a row, a key-value head and a piece of that row's cache, over the pages of the piece one after the other; what the
pieces gave is then joined in their order. Nothing that is computed depends on another row of the step, on how many there are,
or on where in the step a row stands, and pieces begin at the same positions for all: so a row's bits follow from what is cached
alone. The running softmax is FlashAttention's (Dao, arXiv 2307.08691, section 3.1), its pieces Flash-Decoding's.
"""

# ruff: noqa: ANN001, N803  # kernels are no Python: their arguments are pointers and numbers, and constants have capitals

import math
from typing import Any

import triton
import triton.language as tl

from speculation.engines.kv_pages import PAGE
from speculation.engines.torch_attention import Pool, Tensor

LEAST_SIDE = 16
"""The tensor cores take no smaller matrices."""
PIECE_PAGES, MOST_PIECES = 8, 32
"""A piece has so many pages; more where a whole context would have more pieces than this."""


@triton.jit
def _keep_rows(
    packed, turned, keys, values, table, slots, positions, cosines, sines, gains,
    num_pages, epsilon,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SIZE: tl.constexpr, HALF: tl.constexpr, PAGE: tl.constexpr,
    HAS_GAINS: tl.constexpr,
) -> None:  # fmt: skip
    """Program (row, head): one head's query, key or value of a row to where it belongs."""
    row, head = tl.program_id(0), tl.program_id(1)
    position = tl.load(positions + row)
    if position >= 0:
        half = tl.arange(0, HALF)
        is_real = half < SIZE // 2
        source = packed + (row * (HEADS + 2 * KV_HEADS) + head) * SIZE
        first = tl.load(source + half, is_real, 0.0).to(tl.float32)
        second = tl.load(source + SIZE // 2 + half, is_real, 0.0).to(tl.float32)
        page = tl.load(table + tl.load(slots + row) * num_pages + position // PAGE).to(tl.int64)
        place = (page * PAGE + position % PAGE) * KV_HEADS * SIZE
        if head < HEADS + KV_HEADS:
            if HAS_GAINS:
                squares = tl.sum(first * first, 0) + tl.sum(second * second, 0)
                shrunk = 1.0 / tl.sqrt(squares / SIZE + epsilon)
                gain = gains + (head >= HEADS).to(tl.int32) * SIZE
                first = first * shrunk * tl.load(gain + half, is_real, 0.0).to(tl.float32)
                second = second * shrunk * tl.load(gain + SIZE // 2 + half, is_real, 0.0).to(tl.float32)
            cosine = tl.load(cosines + position * (SIZE // 2) + half, is_real, 0.0)
            sine = tl.load(sines + position * (SIZE // 2) + half, is_real, 0.0)
            left, right = first * cosine - second * sine, second * cosine + first * sine
            if head < HEADS:  # noqa: SIM108  # Triton compiles no conditional expressions of what is known while it runs
                target = turned + (row * HEADS + head) * SIZE
            else:
                target = keys + place + (head - HEADS) * SIZE
            tl.store(target + half, left.to(packed.dtype.element_ty), is_real)
            tl.store(target + SIZE // 2 + half, right.to(packed.dtype.element_ty), is_real)
        else:
            target = values + place + (head - HEADS - KV_HEADS) * SIZE
            tl.store(target + half, first.to(packed.dtype.element_ty), is_real)
            tl.store(target + SIZE // 2 + half, second.to(packed.dtype.element_ty), is_real)


@triton.jit
def _attend(
    queries, keys, values, table, slots, positions, taken_by, highest_of, weight_of,
    num_pages, piece_pages, num_pieces, scale,
    GROUP: tl.constexpr, SIDE: tl.constexpr, KV_HEADS: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr,
    PAGE: tl.constexpr, WINDOW: tl.constexpr,
) -> None:  # fmt: skip
    """Program (row, kv head, piece): what the query heads of one key-value head take from a piece of the row's cache, float32
    [rows, pieces, heads, D], with the highest score and the weight of each, [rows, pieces, heads]."""
    row, kv_head, piece = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    position = tl.load(positions + row)
    first = piece * piece_pages
    if WINDOW > 0:
        first = tl.maximum(first, tl.maximum(position - WINDOW + 1, 0) // PAGE)
    end = tl.minimum((piece + 1) * piece_pages, position // PAGE + 1)
    if (position >= 0) & (first < end):
        member, channel, place = tl.arange(0, SIDE), tl.arange(0, WIDTH), tl.arange(0, PAGE)
        own = (row * KV_HEADS * GROUP + kv_head * GROUP + member[:, None]) * SIZE + channel[None, :]
        is_own = (member[:, None] < GROUP) & (channel[None, :] < SIZE)
        query = tl.load(queries + own, is_own, 0.0)
        highest = tl.full([SIDE], -1e30, tl.float32)  # below any score
        weight = tl.zeros([SIDE], tl.float32)
        taken = tl.zeros([SIDE, WIDTH], tl.float32)
        slot_pages = table + tl.load(slots + row) * num_pages
        for number in range(first, end):
            page = tl.load(slot_pages + number).to(tl.int64)
            at = number * PAGE + place
            is_seen = at <= position
            if WINDOW > 0:
                is_seen = is_seen & (at > position - WINDOW)
            cached = ((page * PAGE + place[:, None]) * KV_HEADS + kv_head) * SIZE + channel[None, :]
            is_cached = is_seen[:, None] & (channel[None, :] < SIZE)
            key = tl.load(keys + cached, is_cached, 0.0)
            scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
            scores = tl.where(is_seen[None, :], scores, -1e30)
            higher = tl.maximum(highest, tl.max(scores, 1))
            shares = tl.where(is_seen[None, :], tl.exp(scores - higher[:, None]), 0.0)
            kept = tl.exp(highest - higher)
            value = tl.load(values + cached, is_cached, 0.0)
            weight = weight * kept + tl.sum(shares, 1)
            taken = taken * kept[:, None] + tl.dot(shares.to(value.dtype), value, input_precision="ieee")
            highest = higher
        head = (row * num_pieces + piece) * KV_HEADS * GROUP + kv_head * GROUP + member
        tl.store(taken_by + head[:, None] * SIZE + channel[None, :], taken, is_own)
        tl.store(highest_of + head, highest, member < GROUP)
        tl.store(weight_of + head, weight, member < GROUP)


@triton.jit
def _join(
    taken_by, highest_of, weight_of, positions, out,
    piece_pages, num_pieces,
    HEADS: tl.constexpr, SIZE: tl.constexpr, WIDTH: tl.constexpr, PAGE: tl.constexpr, WINDOW: tl.constexpr,
) -> None:  # fmt: skip
    """Program (row, head): what a head takes from all pieces of the row's cache, the first to the last."""
    row, head = tl.program_id(0), tl.program_id(1)
    position = tl.load(positions + row)
    if position >= 0:
        channel = tl.arange(0, WIDTH)
        is_own = channel < SIZE
        first = 0
        if WINDOW > 0:
            first = tl.maximum(position - WINDOW + 1, 0) // PAGE // piece_pages
        at = (row * num_pieces + first) * HEADS + head
        highest, weight = tl.load(highest_of + at), tl.load(weight_of + at)
        taken = tl.load(taken_by + at * SIZE + channel, is_own, 0.0)
        for piece in range(first + 1, position // PAGE // piece_pages + 1):
            at = (row * num_pieces + piece) * HEADS + head
            its_highest = tl.load(highest_of + at)
            higher = tl.maximum(highest, its_highest)
            kept, added = tl.exp(highest - higher), tl.exp(its_highest - higher)
            weight = weight * kept + tl.load(weight_of + at) * added
            taken = taken * kept + tl.load(taken_by + at * SIZE + channel, is_own, 0.0) * added
            highest = higher
        tl.store(out + (row * HEADS + head) * SIZE + channel, (taken / weight).to(out.dtype.element_ty), is_own)


class TritonAttention:
    """An ``Attention`` whose launches can be captured in a CUDA graph."""

    def __init__(self, pool: Pool) -> None:
        import torch

        shape, num_rows = pool.architecture, len(pool.positions)
        self._pool = pool
        like = {"dtype": pool.caches.dtype, "device": pool.caches.device}
        self._queries = torch.zeros(num_rows, shape.num_heads, shape.head_size, **like)
        self._out = torch.zeros(num_rows, shape.num_heads * shape.head_size, **like)
        self._rows = (pool.table, pool.slots, pool.positions)
        self._piece_pages = max(PIECE_PAGES, -(-pool.table.shape[1] // MOST_PIECES))
        self._num_pieces = -(-pool.table.shape[1] // self._piece_pages)
        pieces = (num_rows, self._num_pieces, shape.num_heads)
        whole = {"dtype": torch.float32, "device": pool.caches.device}
        self._taken = torch.zeros(*pieces, shape.head_size, **whole)
        self._highest, self._weight = torch.zeros(pieces, **whole), torch.zeros(pieces, **whole)

    def turned(self, layer: int, packed: Tensor) -> Tensor:
        pool, shape = self._pool, self._pool.architecture
        keys, values = pool.caches[layer]
        gains = packed if pool.gains is None else pool.gains[layer]
        _keep_rows[len(packed), shape.num_heads + 2 * shape.num_kv_heads](
            packed, self._queries, keys, values, *self._rows, pool.cosines, pool.sines, gains,
            pool.table.shape[1], shape.norm_epsilon,
            HEADS=shape.num_heads, KV_HEADS=shape.num_kv_heads, SIZE=shape.head_size,
            HALF=_power_of_two(shape.head_size // 2), PAGE=PAGE, HAS_GAINS=pool.gains is not None, num_warps=1,
        )  # fmt: skip
        return self._queries

    def attended(self, layer: int, queries: Tensor) -> Tensor:
        pool, shape = self._pool, self._pool.architecture
        keys, values = pool.caches[layer]
        group = shape.num_heads // shape.num_kv_heads
        window = shape.windows[layer] if shape.windows[layer] < shape.context_length else 0
        sizes: dict[str, Any] = {"SIZE": shape.head_size, "WIDTH": max(LEAST_SIDE, _power_of_two(shape.head_size))}
        sizes |= {"PAGE": PAGE, "WINDOW": window}
        found = (self._taken, self._highest, self._weight)
        _attend[len(queries), shape.num_kv_heads, self._num_pieces](
            queries, keys, values, *self._rows, *found,
            pool.table.shape[1], self._piece_pages, self._num_pieces, shape.head_size**-0.5,
            GROUP=group, SIDE=max(LEAST_SIDE, _power_of_two(group)), KV_HEADS=shape.num_kv_heads, **sizes,
        )  # fmt: skip
        _join[len(queries), shape.num_heads](
            *found, pool.positions, self._out, self._piece_pages, self._num_pieces, HEADS=shape.num_heads, **sizes
        )
        return self._out


def _power_of_two(number: int) -> int:
    """The least one that is not smaller."""
    return 1 << math.ceil(math.log2(number))
