"""Attention of a step's rows over a paged pool of keys and values, by PyTorch's own operators: for machines without a GPU.

Each row is computed for itself, over as many positions as its pages have: the shapes follow from its position alone, and with
them its bits. ``triton_attention.py`` does the same on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from speculation.engines.architecture import Architecture
from speculation.engines.kv_pages import PAGE

Tensor = Any


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """What attention reads and writes; the tensors stay the same from step to step, their content changes.

    ``caches`` [layers, 2, pages, ``PAGE``, kv heads, D]: keys, turned, and values. ``table`` int32 [slots, pages of a context].
    ``slots`` and ``positions`` int32 [rows]: whose each row is and where it stands, -1 for a row that counts for nothing.
    ``cosines`` and ``sines`` float32 [positions, D / 2]. ``gains`` [layers, 2, D] of queries' and keys' norms, where they have
    any.
    """

    architecture: Architecture
    caches: Tensor
    table: Tensor
    slots: Tensor
    positions: Tensor
    cosines: Tensor
    sines: Tensor
    gains: Tensor | None


class Attention(Protocol):
    """How the rows of a step see what is cached."""

    def turned(self, layer: int, packed: Tensor) -> Tensor:
        """Of ``packed`` [rows, (heads + 2 kv heads) D], queries, keys and values side by side, keep keys and values at the
        positions of the rows. The queries [rows, heads, D] come back, normed where the model does, and turned."""

    def attended(self, layer: int, queries: Tensor) -> Tensor:
        """What each row takes from its cache up to its own position, [rows, heads D]. Rows that count for nothing hold
        anything finite."""


class PlainAttention:
    """An ``Attention`` row by row."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def turned(self, layer: int, packed: Tensor) -> Tensor:
        import torch

        pool, shape = self._pool, self._pool.architecture
        heads = packed.view(len(packed), -1, shape.head_size)
        num_turned = shape.num_heads + shape.num_kv_heads
        queries_keys, values = heads[:, :num_turned], heads[:, num_turned:]
        if pool.gains is not None:
            parts = queries_keys.split([shape.num_heads, shape.num_kv_heads], 1)
            normed = [
                torch.nn.functional.rms_norm(part, (shape.head_size,), gain, shape.norm_epsilon)
                for part, gain in zip(parts, pool.gains[layer], strict=True)
            ]
            queries_keys = torch.cat(normed, 1)
        rows = pool.positions.clamp(min=0).long()
        cosines, sines = (table[rows].unsqueeze(1) for table in (pool.cosines, pool.sines))
        first, second = queries_keys.float().chunk(2, -1)
        turned = torch.cat((first * cosines - second * sines, second * cosines + first * sines), -1).to(packed.dtype)
        pages = pool.table[pool.slots.long(), rows // PAGE].masked_fill(pool.positions < 0, 0).long()
        pool.caches[layer, 0, pages, rows % PAGE] = turned[:, shape.num_heads :]
        pool.caches[layer, 1, pages, rows % PAGE] = values
        return turned[:, : shape.num_heads]

    def attended(self, layer: int, queries: Tensor) -> Tensor:
        import torch

        out = torch.zeros(len(queries), queries[0].numel(), dtype=queries.dtype, device=queries.device)
        for row, (slot, position) in enumerate(zip(self._pool.slots.tolist(), self._pool.positions.tolist(), strict=True)):
            if position >= 0:
                out[row] = self._row(layer, queries[row], slot, position)
        return out

    def _row(self, layer: int, queries: Tensor, slot: int, position: int) -> Tensor:
        import torch

        pool, shape = self._pool, self._pool.architecture
        pages = pool.table[slot, : position // PAGE + 1].long()
        keys, values = (pool.caches[layer, part, pages].flatten(0, 1).transpose(0, 1).float() for part in (0, 1))
        places = torch.arange(keys.shape[1], device=queries.device)
        hidden = places > position
        if 0 < shape.windows[layer] < shape.context_length:
            hidden |= places <= position - shape.windows[layer]
        grouped = queries.float().view(shape.num_kv_heads, -1, shape.head_size)
        scores = (grouped @ keys.transpose(1, 2) * shape.head_size**-0.5).masked_fill(hidden, -torch.inf)
        return (scores.softmax(-1) @ values).flatten().to(queries.dtype)
